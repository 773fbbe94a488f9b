"""`conch demo`: the sample models, exported, served by the real Triton, and asked through every client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from conch.errors import ConchError
from conch.repository import Repository
from conch.tensor_spec import Array
from conch.terminal import console, print_json, print_table
from export.samples import GENERATING, SAMPLES, Question, missing_packages, run, sample

if TYPE_CHECKING:
    from clients import Answer


@dataclass(frozen=True)
class Asked:
    """One question and the answer that each client got, with its time in milliseconds."""

    sample: str
    question: Question
    answers: Mapping[str, dict[str, Array]]
    milliseconds: Mapping[str, float]


@click.command()
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="Where the samples are exported to, and served from.",
)
@click.option("--fresh", is_flag=True, help="Export the samples again, as new versions.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers on stdout as JSON.")
def demo(repository: Path, fresh: bool, as_json: bool) -> None:
    """Export the samples, serve them with Triton, ask them through every client, stop.

    \b
    Examples:
      conch demo
      conch demo --fresh --repository /tmp/models
    """
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    store = Repository(repository)
    names = [name for name in SAMPLES if not _left_out(name)]
    for name in names:
        _export(name, store, fresh)
    console.print(f"\n[bold]Starting Triton[/bold] on {repository}")
    began = time.monotonic()
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=5)
    with EmbeddedServer(store.root, options) as server:
        console.print(f"ready after {time.monotonic() - began:.0f} s: {server.http_url} and {server.grpc_url}\n")
        asking = [name for name in names if name not in GENERATING]
        asked = [one for name in asking for one in ask(name, sample(name).QUESTIONS, server.http_url, server.grpc_url)]
        for name in asking:
            _print_answers(name, [one for one in asked if one.sample == name])
        told = [one for name in names if name in GENERATING for one in stream(name, server.grpc_url)]
    disagreeing = [one for one in asked if not _agree(one)]
    if disagreeing:
        raise ConchError(
            "the clients got different answers",
            where=disagreeing[0].sample,
            got={client: describe(answer) for client, answer in disagreeing[0].answers.items()},
        )
    console.print("The four clients got the same answers to every question.")
    console.print("Triton is stopped. Next: [bold]conch serve[/bold], and beside it [bold]conch gateway[/bold]")
    if as_json:
        print_json([_as_json(one) for one in (*asked, *told)])


def _left_out(name: str) -> str:
    """Why a sample is not shown, told to the user; "" when it is."""
    reason = missing_packages(name)
    if reason:
        console.print(f"[bold]{name}[/bold] is left out: {reason}", markup=True, soft_wrap=True)
    return reason


def _export(name: str, store: Repository, fresh: bool) -> None:
    """Export a sample unless the repository has it already."""
    from export import report

    if not fresh and name in store.model_names() and store.versions(name):
        console.print(f"[bold]{name}[/bold]: version {store.latest(name)} is there already (--fresh exports it again)")
        return
    module = sample(name)
    console.print(f"[bold]{name}[/bold]: {(module.__doc__ or '').splitlines()[0]}")
    options = module.options(store.root)
    report.print_report(run(module.source(options), options))


def ask(name: str, questions: Sequence[Question], http_url: str, grpc_url: str) -> list[Asked]:
    """Put each question to a sample through HTTP and gRPC, with the blocking and the async client."""
    from clients import AsyncClient, Client

    async def ask_async(url: str) -> list[tuple[Answer, float]]:
        async with AsyncClient(url) as client:
            await client.infer(name, questions[0].inputs)  # connects, and reads the model's metadata
            timed = []
            for question in questions:
                began = time.perf_counter()
                answer = await client.infer(name, question.inputs)
                timed.append((answer, (time.perf_counter() - began) * 1000))
            return timed

    def ask_blocking(url: str) -> list[tuple[Answer, float]]:
        with Client(url) as client:
            client.infer(name, questions[0].inputs)
            timed = []
            for question in questions:
                began = time.perf_counter()
                answer = client.infer(name, question.inputs)
                timed.append((answer, (time.perf_counter() - began) * 1000))
            return timed

    runs = {
        "HTTP": ask_blocking(http_url),
        "HTTP async": asyncio.run(ask_async(http_url)),
        "gRPC": ask_blocking(grpc_url),
        "gRPC async": asyncio.run(ask_async(grpc_url)),
    }
    return [
        Asked(
            name,
            question,
            {client: timed[index][0] for client, timed in runs.items()},
            {client: timed[index][1] for client, timed in runs.items()},
        )
        for index, question in enumerate(questions)
    ]


def stream(name: str, grpc_url: str) -> list[Asked]:
    """Put each question to a model that generates text, and print each piece of the answer as it comes."""
    from clients import Client

    told = []
    console.print(f"[bold]{name}[/bold]")
    with Client(grpc_url) as client:
        for question in sample(name).QUESTIONS:
            console.print(f"{question.text}\n  ", end="")
            began = time.perf_counter()
            messages = [{"role": "user", "content": question.text}]
            pieces, first_ms = [], 0.0
            for piece in client.chat_stream(name, messages, temperature=0, max_tokens=80):
                first_ms = first_ms or (time.perf_counter() - began) * 1000
                pieces.append(piece.text)
                console.print(piece.text, end="", markup=False)
            whole_ms = (time.perf_counter() - began) * 1000
            console.print(f"  ({len(pieces)} pieces, the first after {first_ms:.0f} ms, all after {whole_ms:.0f} ms)")
            answer = {"text_output": np.array(["".join(pieces)], dtype=object)}
            told.append(Asked(name, question, {"gRPC stream": answer}, {"gRPC stream": whole_ms, "first": first_ms}))
    console.print()
    return told


def describe(answer: Mapping[str, Array]) -> str:
    """An answer on one line: a label with its score, a number, or the beginning of a vector."""
    if "label" in answer:
        return f"{_text(answer['label'].ravel()[0])}  {float(answer['score'].ravel()[0]):.3f}"
    parts = []
    for name, array in answer.items():
        flat = array.ravel()
        shown = ", ".join(f"{x:.3f}" if isinstance(x, float | np.floating) else _text(x) for x in flat[:3])
        parts.append(f"{name} {shown}" + (f", ... ({flat.size} numbers)" if flat.size > 3 else ""))
    return "; ".join(parts)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _agree(one: Asked) -> bool:
    first, *others = one.answers.values()
    return all(_same(first[name], other[name]) for other in others for name in first)


def _same(one: Array, other: Array) -> bool:
    if one.dtype == object:
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, atol=1e-5))


def _print_answers(name: str, asked: Sequence[Asked]) -> None:
    columns = ["question", "answer", *(f"{client} ms" for client in asked[0].answers)]
    rows = []
    for one in asked:
        answer = describe(one.answers["HTTP"])
        if one.question.expected is not None and one.question.expected not in answer:
            answer += f"  (expected {one.question.expected})"
        rows.append([one.question.text, answer, *(f"{ms:.1f}" for ms in one.milliseconds.values())])
    print_table(columns, rows, title=f"[bold]{name}[/bold]")
    console.print()


def _as_json(one: Asked) -> dict[str, Any]:
    return {
        "sample": one.sample,
        "question": one.question.text,
        "expected": one.question.expected,
        "answers": {client: describe(answer) for client, answer in one.answers.items()},
        "milliseconds": dict(one.milliseconds),
    }
