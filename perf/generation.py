"""Generation measured: tokens a second and the time to the first, of ours, of the bare engine, and of FastAPI.

\b
    python -m perf.generation                         # int8; a few minutes
    python -m perf.generation --weight-format int4
    python -m perf.generation --quick                 # does it run? Its figures say nothing

\b
bare        OpenVINO GenAI's continuous batching in a process, and no server: the limit; with the library's defaults,
            and in the precision that ours has, in which a greedy text is the same alone and beside others
gRPC        the exported model in Triton, over streams of gRPC; and through AsyncClient, its own work included
SSE         the same through the gateway's /v1/completions, as server-sent events
FastAPI     transformers' generate called in the handler, fp32; the fastest of several forms takes part

The model is a Llama of about 100 M random parameters, built here. Texts are greedy, of 32 to 96 tokens; no prompt comes
twice. Contenders take turns at each number of streams, another first in each round; ratios are taken within a round.
Load comes from one thread that counts responses without reading them. FastAPI answers whole texts: each stream asks for
one, and its first token comes with the last. What a request waits that arrives while others run is measured by itself:
short texts one after the other, while long ones run on all other streams. Writes a table and all figures to
perf/results/.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console, print_json, print_table
from perf import generation_standings, requirement, result_files
from perf.compare_servers import levels
from perf.contenders import generation_field
from perf.contenders.environments import Unavailable
from perf.contenders.generation_field import Contender, Load
from perf.contenders.generation_model import model_name, prepare
from perf.contenders.generation_work import work
from perf.contenders.rounds import idle_cores, in_turn
from perf.points import now, this_machine
from perf.requirement import Requirement
from perf.result_files import RESULTS
from perf.stream_load import StreamResult

GRPC, EVENTS = "conch, Triton gRPC", "conch, gateway SSE"


@dataclass(frozen=True)
class Plan:
    """How long and how often; ``equal_texts`` are compared alone and beside each other."""

    streams: tuple[int, ...]
    mean_tokens: int
    duration_s: float
    warmup_s: float
    rounds: int
    equal_texts: int
    fastapi: bool = True


@dataclass
class Outcome:
    """What came of it."""

    runs: dict[int, dict[str, list[StreamResult]]]
    arrivals: dict[int, dict[str, list[StreamResult]]]
    roles: dict[str, Any]
    equal: dict[str, float]
    notes: list[str]
    idle_cores: dict[str, float]


def fastest_framework(checkpoint: Path, plan: Plan) -> tuple[dict[str, float], Any]:
    """Tokens/s of each form in a short trial, and how to start the fastest. Raises: Unavailable."""
    cores = os.cpu_count() or 1
    forms = {
        f"1 worker of {cores} threads, one text at a time": (1, cores, False),
        f"{cores} workers of 1 thread, one text at a time each": (cores, 1, False),
        f"1 worker of {cores} threads, texts side by side": (1, cores, True),
    }
    rates: dict[str, float] = {}
    for label, (workers, threads, in_threads) in forms.items():
        start = partial(generation_field.framework, checkpoint, workers=workers, threads=threads, in_threads=in_threads)
        with start() as contender:
            tried = contender.load(Load("trial", max(2, plan.mean_tokens // 8), max(plan.streams), 0, 0))
        rates[label] = tried.tokens_per_second
        console.print(f"  FastAPI, {label}: {tried.tokens_per_second:.0f} tokens/s", markup=False)
    best = max(rates, key=rates.__getitem__)
    workers, threads, in_threads = forms[best]
    start = partial(generation_field.framework, checkpoint, workers=workers, threads=threads, in_threads=in_threads)
    return rates, start


def equal_share(contender: Contender, plan: Plan, in_flight: int) -> float:
    """The share of greedy texts that come out the same alone and beside others."""
    prompts = work("equal", plan.mean_tokens, plan.equal_texts).prompts
    alone = contender.texts(prompts, plan.mean_tokens, 1)
    beside = contender.texts(prompts, plan.mean_tokens, in_flight)
    return sum(one == other for one, other in zip(alone, beside, strict=True)) / len(prompts)


def check_same_texts(contenders: list[Contender], plan: Plan) -> list[str]:
    """Raise ConchError unless all of ours say the same; notes on how others differ, which may compute otherwise."""
    prompts = work("same", plan.mean_tokens, 4).prompts
    said = {contender.name: contender.texts(prompts, plan.mean_tokens, 1) for contender in contenders}
    due = said[GRPC]
    notes = []
    for contender in contenders:
        same = sum(one == other for one, other in zip(said[contender.name], due, strict=True))
        if contender.role == "ours" and same < len(prompts):
            raise ConchError(
                f"{contender.name} says something else than {GRPC}", got=said[contender.name], expected=due
            )
        if contender.role != "ours":
            notes.append(f"{contender.name}: {same} of {len(prompts)} greedy texts are those of {GRPC}")
    return notes


def measure(checkpoint: Path, folder: Path, repository: Repository, weight_format: str, plan: Plan) -> Outcome:
    """All rounds. Raises: ConchError."""
    alone_and_beside = (1, max(plan.streams))
    outcome = Outcome({streams: {} for streams in plan.streams}, {n: {} for n in alone_and_beside}, {}, {}, [], {})
    with ExitStack() as stack:
        name = model_name(weight_format)
        contenders = [
            stack.enter_context(generation_field.bare(label, folder, repository, name))
            for label in generation_field.BARE
        ]
        contenders += stack.enter_context(generation_field.served(repository, weight_format))
        if plan.fastapi:
            try:
                rates, start = fastest_framework(checkpoint, plan)
                contenders.append(stack.enter_context(start()))
                tried = "; ".join(f"{label}: {rate:.0f}" for label, rate in rates.items())
                outcome.notes.append(f"FastAPI is the fastest of these forms, by tokens/s in a short trial: {tried}")
            except Unavailable as error:
                outcome.notes.append(f"left out: FastAPI: {error.what}")
        outcome.roles = {contender.name: contender.role for contender in contenders}
        outcome.notes += check_same_texts(contenders, plan)
        outcome.idle_cores = {c.name: idle_cores([c]) for c in contenders if c.pids}
        for turn in range(plan.rounds):
            for streams in plan.streams:
                for contender in in_turn(contenders, turn):
                    nonce = f"round {turn} of {now()}"
                    asked = Load(nonce, plan.mean_tokens, streams, plan.duration_s, plan.warmup_s)
                    run = contender.load(asked)
                    outcome.runs[streams].setdefault(contender.name, []).append(run)
                    _show(turn, plan, contender, run)
            for contender in in_turn([c for c in contenders if c.name in (GRPC, EVENTS)], turn):
                for streams in alone_and_beside:
                    nonce = f"arrivals {turn} of {now()}"
                    asked = Load(nonce, plan.mean_tokens, streams, plan.duration_s, plan.warmup_s, arrivals=True)
                    outcome.arrivals[streams].setdefault(contender.name, []).append(contender.load(asked))
        for contender in contenders:
            if contender.name in (GRPC, EVENTS):
                outcome.equal[contender.name] = equal_share(contender, plan, max(plan.streams))
    return outcome


def _show(turn: int, plan: Plan, contender: Contender, run: StreamResult) -> None:
    failed = f"   {run.failures} FAILED" if run.failures else ""
    console.print(
        f"round {turn + 1}/{plan.rounds}  {run.streams:>3} streams  {contender.name:<30}"
        f"{run.tokens_per_second:8.0f} tokens/s   first after {run.first_token_p50_ms:7.1f} ms{failed}",
        markup=False,
    )


def _listed(measured: generation_standings.Runs) -> list[dict[str, Any]]:
    return [{"server": name} | asdict(run) for at in measured.values() for name, runs in at.items() for run in runs]


def write_results(outcome: Outcome, plan: Plan, weight_format: str, path: Path) -> tuple[Any, list[Requirement]]:
    """The table and the figures; returns the figures, and what they are held to."""
    held = generation_standings.requirements(
        outcome.runs,
        outcome.arrivals,
        outcome.roles,
        grpc=GRPC,
        events=EVENTS,
        same_precision=generation_field.AS_OURS,
        equal=outcome.equal,
    )
    machine = this_machine("Triton 2.51.0, embedded")
    document = result_files.plain(
        {
            "at": now(),
            "machine": asdict(machine),
            "model": f"a Llama of about 100 M random parameters, {weight_format}",
            "plan": asdict(plan),
            "notes": outcome.notes,
            "idle_cores": outcome.idle_cores,
            "requirements": [each.document() for each in held],
            "runs": _listed(outcome.runs),
            "arrivals": _listed(outcome.arrivals),
        }
    )
    table = generation_standings.rows(outcome.runs, outcome.roles)
    lines = [
        f"{result_files.described(machine)}; {document['at']}",
        "",
        f"{document['model']}; medians of {plan.rounds} rounds of {plan.duration_s:g} s; ratios within a round.",
        "",
        *result_files.markdown(generation_standings.HEADER, table),
        "",
        *result_files.markdown(requirement.HEADER, [each.row() for each in held]),
        "",
        *(f"- {note}" for note in outcome.notes),
    ]
    result_files.write(path, document, lines)
    return document, held


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--weight-format", type=click.Choice(["int8", "int4", "fp16"]), default="int8", show_default=True)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=RESULTS / "repository_generation",
    show_default=True,
    help="Where the model is exported to, when it is not there or has other code.",
)
@click.option("--streams", callback=levels, default="1,4,16", show_default=True, help="Side by side, comma-separated.")
@click.option("--tokens", "mean_tokens", default=64, show_default=True, help="A text, in the mean.")
@click.option("--duration", "duration_s", default=8.0, show_default=True, help="Seconds a measurement.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often they take turns.")
@click.option("--fastapi/--no-fastapi", default=True, help="It takes longer than all others together.")
@click.option("--quick", is_flag=True, help="One round of short measurements, to see that it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    weight_format: str,
    repository: Path,
    streams: tuple[int, ...],
    mean_tokens: int,
    duration_s: float,
    rounds: int,
    fastapi: bool,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure generation."""
    plan = Plan(streams, mean_tokens, duration_s, 2.0, rounds, 16, fastapi)
    if quick:
        plan = Plan(streams, 8, 3.0, 1.0, 1, 4, fastapi)
    checkpoint, store = RESULTS / "checkpoints" / "llama", Repository(repository)
    try:
        folder = prepare(checkpoint.absolute(), store.root, weight_format)
        outcome = measure(checkpoint.absolute(), folder, store, weight_format, plan)
    except ConchError as error:
        raise click.ClickException(str(error)) from error
    path = RESULTS / f"generation_{weight_format}{'_quick' if quick else ''}"
    document, held = write_results(outcome, plan, weight_format, path)
    print_table(
        generation_standings.HEADER, generation_standings.rows(outcome.runs, outcome.roles), title="\ngeneration"
    )
    print_table(requirement.HEADER, [each.row() for each in held], title="\nheld to")
    for note in outcome.notes:
        console.print(note, markup=False)
    console.print(f"\ntable and figures: {path}.{{md,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
