"""`make bench`: what is served here beside what people would run instead, on the same files and inputs, in one run.

    python -m perf.compare_servers                                # text, tabular and image, against all
    python -m perf.compare_servers --workload text --contenders fastapi,bare,conch
    python -m perf.compare_servers --quick                        # does it run? Its figures say nothing

\b
framework   FastAPI with the framework called in the handler (transformers on torch, scikit-learn), fp32
fastapi     FastAPI + ONNX Runtime: async handlers, a worker a core, a thread a session; with ONNX Runtime's defaults,
            and with the graph level that our export chose for the file, where these differ
litserve, bentoml, ray
            the same handler in each, in an environment of its own, with and without batching
bare        processes that call ONNX Runtime, one a core, and no server: the limit (text)
conch       the exported model over HTTP with JSON in and out, HTTP with binary tensors, gRPC; as a single model, and
            as an ensemble

Of variants (batching, workers) the fastest of a trial takes part, which the result names. The servers take turns at
each number of requests in flight, another first in each round; ratios are taken within a round. A server whose waiting
processes take processor time, which is measured, or much memory (Ray, torch) is started for its turn and stopped. HTTP
and gRPC load come from the same loop, in one thread. All contenders must give the same answers before anything is
measured. Writes a table, a plot and all figures to perf/results/.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console, print_json, print_table
from perf.contenders import field as contenders
from perf.contenders.entries import Entry, Target, Variant
from perf.contenders.environments import Unavailable
from perf.contenders.prepare import prepare
from perf.contenders.processes import cpu_seconds
from perf.contenders.workloads import WORKLOADS, Workload
from perf.load_loop import LoadResult
from perf.points import Machine, now, this_machine
from perf.standings import HEADER, Standing, compare, markdown, rows
from perf.standings_plot import write_plot

RESULTS = Path("perf/results")
# int8 by its own quantizer beside fp32 of the framework: the same direction is all that can be asked.
LEAST_COSINE = 0.95
MOST_DIFFERENCE = 1e-4
# A server that takes more than this while it waits does not wait while others are measured.
MOST_IDLE_CORES = 0.03


@dataclass(frozen=True)
class Plan:
    """How long and how often: seconds a measurement and before it, rounds, and requests in flight."""

    levels: tuple[int, ...]
    duration_s: float
    warmup_s: float
    rounds: int
    trial_s: float


@dataclass
class Outcome:
    """What a workload gave. ``runs``: requests in flight -> server -> a round each."""

    workload: Workload
    runs: dict[int, dict[str, list[LoadResult]]]
    entries: dict[str, Entry] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    trials: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    idle_cores: dict[str, float] = field(default_factory=dict)

    def add(self, entry: Entry, target: Target, result: LoadResult) -> None:
        """Count a measurement."""
        self.entries[target.name] = entry
        self.versions[entry.name] = entry.version()
        self.runs[result.connections].setdefault(target.name, []).append(result)

    def standings(self) -> list[Standing]:
        """Everyone at each number of requests in flight, who took part in every round, in the order of the field."""
        order = [name for entry in contenders.KEYS for name, own in self.entries.items() if own.key == entry]
        found = []
        for own in self.runs.values():
            rounds = max((len(runs) for runs in own.values()), default=0)
            whole = {name: own[name] for name in order if len(own.get(name, [])) == rounds}
            found += compare(whole, {name: self.entries[name].role for name in whole})
        return found


def in_turn(targets: Sequence[Any], turn: int) -> list[Any]:
    """The order in a round: another goes first each time, so that none always meets the warmer machine."""
    first = turn % len(targets) if targets else 0
    return [*targets[first:], *targets[:first]]


def check_same_answers(expected: Target, target: Target, *, exact: bool, questions: int = 3) -> None:
    """Raise ConchError unless both answer alike: only then is the comparison fair."""
    for index in range(questions):
        due, got = expected.ask(index), target.ask(index)
        for name, value in got.items():
            mine, its = np.asarray(due[name]).ravel(), np.asarray(value).ravel()
            if mine.shape == its.shape:
                if mine.dtype.kind in "US":
                    same, difference = list(mine) == list(its), f"{list(its)} for {list(mine)}"
                elif exact:
                    largest = float(np.abs(mine - its).max())
                    same, difference = largest <= MOST_DIFFERENCE, f"a difference of {largest:.2g}"
                else:
                    cosine = float(mine @ its / np.linalg.norm(mine) / np.linalg.norm(its))
                    same, difference = cosine >= LEAST_COSINE, f"a cosine of {cosine:.3f}"
                if same:
                    continue
            else:
                difference = f"{its.shape} for {mine.shape}"
            raise ConchError(
                f"{target.name} answers otherwise than {expected.name}",
                where=f"{name} of payload {index}",
                got=difference,
                expected="equal text, numbers within "
                f"{MOST_DIFFERENCE:g}; for fp32 beside int8 a cosine of {LEAST_COSINE}",
            )


def best_variant(entry: Entry, plan: Plan, outcome: Outcome) -> Variant:
    """The variant with the highest geometric mean of requests/s over the numbers in flight. Raises: Unavailable."""
    if len(entry.variants) == 1:
        return entry.variants[0]
    scores: dict[str, float] = {}
    failure: Unavailable | None = None
    for variant in entry.variants:
        try:
            with variant.start() as (target, *_):
                results = [target.load(level, plan.trial_s, plan.trial_s / 2) for level in plan.levels]
        except Unavailable as error:
            failure = error
            if "environment" in error.what:
                break
            console.print(f"  {entry.name}, {variant.label}: {error.what}", markup=False)
            continue
        rates = [0.01 if result.failures else max(result.requests_per_second, 0.01) for result in results]
        scores[variant.label] = round(math.exp(sum(map(math.log, rates)) / len(rates)), 1)
        console.print(f"  {entry.name}, {variant.label}: {scores[variant.label]:.0f} req/s over all numbers in flight")
    if not scores:
        raise failure or Unavailable("no variant could be tried")
    outcome.trials[entry.name] = scores
    return next(v for v in entry.variants if v.label == max(scores, key=lambda label: scores[label]))


def measure(outcome: Outcome, entry: Entry, target: Target, level: int, plan: Plan, turn: int) -> None:
    """One server at one number of requests in flight, in one round."""
    result = target.load(level, plan.duration_s, plan.warmup_s)
    outcome.add(entry, target, result)
    failed = f"   {result.failures} FAILED" if result.failures else ""
    console.print(
        f"round {turn + 1}/{plan.rounds}  {outcome.workload.name:<8}{level:>4} in flight  {target.name:<34}"
        f"{result.requests_per_second:8.0f} req/s   p99 {result.p99_ms:7.1f} ms{failed}",
        markup=False,
    )


def run_workload(workload: Workload, entries: Sequence[Entry], plan: Plan) -> Outcome:
    """All rounds of a workload. What cannot be started is left out, with the reason; ours must start.

    Raises: ConchError when answers differ, or ours does not start.
    """
    outcome = Outcome(workload, {level: {} for level in plan.levels})
    with ExitStack() as stack:
        # Ours first: its answers are what the others' are held to.
        ours = next(entry for entry in entries if entry.role == "ours")
        residents = [(ours, target) for target in stack.enter_context(ours.variants[0].start())]
        reference = residents[0][1]
        for _, target in residents:
            check_same_answers(reference, target, exact=True)
        guests: list[tuple[Entry, Variant]] = []
        for entry in entries:
            if entry is ours:
                continue
            try:
                variant = best_variant(entry, plan, outcome)
                if len(entry.variants) > 1:
                    outcome.chosen[entry.name] = variant.label
                with ExitStack() as own:
                    targets = own.enter_context(variant.start())
                    for target in targets:
                        check_same_answers(reference, target, exact=entry.exact)
                    outcome.idle_cores[entry.name] = idle_cores(targets)
                    if entry.resident and outcome.idle_cores[entry.name] <= MOST_IDLE_CORES:
                        residents += [(entry, named(target, outcome.chosen.get(entry.name))) for target in targets]
                        stack.enter_context(own.pop_all())
                    else:
                        guests.append((entry, variant))
            except Unavailable as error:
                outcome.skipped[entry.name] = error.what
                console.print(f"left out: {entry.name}: {error.what}", markup=False)
        outcome.idle_cores["conch"] = idle_cores([target for _, target in residents][:1])
        for turn in range(plan.rounds):
            for level in plan.levels:
                for entry, target in in_turn(residents, turn):
                    measure(outcome, entry, target, level, plan, turn)
            for entry, variant in guests:
                try:
                    with variant.start() as targets:
                        for target in targets:
                            for level in plan.levels:
                                label = outcome.chosen.get(entry.name)
                                measure(outcome, entry, named(target, label), level, plan, turn)
                except Unavailable as error:
                    outcome.skipped[entry.name] = f"in round {turn + 1}: {error.what}"
    return outcome


def named(target: Target, label: str | None) -> Target:
    """A target with its variant in its name."""
    return target if label is None else replace(target, name=f"{target.name} ({label})")


def idle_cores(targets: Sequence[Target], watch_s: float = 1.0) -> float:
    """How many cores these take while nobody asks them."""
    pids = [pid for target in targets for pid in target.pids]
    before = cpu_seconds(pids)
    time.sleep(watch_s)
    return round((cpu_seconds(pids) - before) / watch_s, 3)


def write_results(outcomes: Sequence[Outcome], plan: Plan, machine: Machine, path: Path) -> dict[str, Any]:
    """The table, the plot and the figures, beside each other; returns the figures."""
    standings = {outcome.workload.name: outcome.standings() for outcome in outcomes}
    titles = {outcome.workload.name: outcome.workload.title for outcome in outcomes}
    where = (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB; Python {machine.python}, "
        f"{machine.triton}, {machine.os}"
    )
    how = f"medians of {plan.rounds} rounds of {plan.duration_s:g} s, min to max; ratios within a round"
    document: dict[str, Any] = {
        "at": now(),
        "machine": asdict(machine),
        "plan": asdict(plan),
        "workloads": {
            outcome.workload.name: {
                "title": outcome.workload.title,
                "versions": outcome.versions,
                "chosen": outcome.chosen,
                "trials_requests_per_second": outcome.trials,
                "skipped": outcome.skipped,
                "idle_cores": outcome.idle_cores,
                "standings": [asdict(standing) for standing in standings[outcome.workload.name]],
                "runs": [
                    {"server": name} | asdict(run)
                    for own in outcome.runs.values()
                    for name, runs in own.items()
                    for run in runs
                ],
            }
            for outcome in outcomes
        },
    }
    document = _plain(document)
    lines = [f"{where}; {document['at']}", "", f"{how[0].upper()}{how[1:]}."]
    for outcome in outcomes:
        name = outcome.workload.name
        lines += ["", f"## {name}: {titles[name]}", "", *markdown(standings[name])]
        lines += ["", "; ".join(f"{who} {release}" for who, release in outcome.versions.items()) + "."]
        lines += [f"- left out: {who}: {why}" for who, why in outcome.skipped.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    write_plot(standings, titles, f"{where}\n{how}", path.with_suffix(".png"))
    return document


def _plain(value: Any) -> Any:
    """A document that any JSON reader takes: what was not measured is null, not NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _chosen(_: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Words separated by commas, each of the known ones; `all` is all of them."""
    known = tuple(WORKLOADS) if parameter.name == "workload" else contenders.KEYS
    words = known if value == "all" else tuple(word.strip() for word in value.split(","))
    if wrong := [word for word in words if word not in known]:
        raise click.BadParameter(f"{', '.join(wrong)}: choose from all, {', '.join(known)}")
    return words


def _levels(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        levels = tuple(int(word) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value}: give numbers, such as 1,8,32") from error
    if any(level < 1 for level in levels):
        raise click.BadParameter(f"{value}: at least 1 each")
    return levels


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--workload", callback=_chosen, default="all", show_default=True, help="text, tabular, image, or several."
)
@click.option("--contenders", "keys", callback=_chosen, default="all", show_default=True, help="By the names above.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=RESULTS / "repository",
    show_default=True,
    help="Where the samples are exported to, when they are not there; remove it to export again.",
)
@click.option(
    "--connections", callback=_levels, default="1,8,32", show_default=True, help="Requests in flight, comma-separated."
)
@click.option("--duration", "duration_s", default=2.5, show_default=True, help="Seconds a measurement.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often the servers take turns."
)
@click.option("--quick", is_flag=True, help="One round of short measurements, to see that it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    workload: tuple[str, ...],
    keys: tuple[str, ...],
    repository: Path,
    connections: tuple[int, ...],
    duration_s: float,
    rounds: int,
    quick: bool,
    as_json: bool,
) -> None:
    """Compare what is served with what people would run instead."""
    plan = Plan(connections, duration_s, 0.5, rounds, trial_s=1.0)
    if quick:
        plan = Plan(connections, 0.5, 0.2, 1, trial_s=0.3)
    keys = keys if "conch" in keys else (*keys, "conch")  # its answers are what the others' are held to
    store = Repository(repository)
    outcomes = []
    try:
        for name in workload:
            prepare(WORKLOADS[name], store)
            entries = contenders.field(WORKLOADS[name], store, RESULTS / "environments", keys)
            outcomes.append(run_workload(WORKLOADS[name], entries, plan))
    except ConchError as error:
        raise click.ClickException(str(error)) from error
    path = RESULTS / ("compare_servers_quick" if quick else "compare_servers")
    document = write_results(outcomes, plan, this_machine("Triton 2.51.0, embedded"), path)
    for outcome in outcomes:
        print_table(HEADER, rows(outcome.standings()), title=f"\n{outcome.workload.name}: {outcome.workload.title}")
        for who, why in outcome.skipped.items():
            console.print(f"left out: {who}: {why}", markup=False)
    console.print(f"\ntable, plot and figures: {path}.{{md,png,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
