"""`make bench`: the served pipeline beside FastAPI + ONNX Runtime, on the same file, texts and machine, in one run.

Both serve the same file, the int8 MiniLM of the `embeddings` sample, one text a request, each as its users would:
FastAPI with its response declared, the fastest handler that was found (``--handler dict``: as its tutorial writes
one), ONNX Runtime's own optimizations and one thread a session, JSON in and out; the pipeline with the settings that
its export wrote, JSON in and the binary tensors out that Triton's clients ask for. The servers take turns at each
number of connections, in several rounds, and ratios are taken within a round: a machine that slows down slows both.
Writes a table, a plot and all figures to perf/results/.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from conch.errors import ConchError, ServerError
from conch.repository import Repository
from conch.tensor_spec import Array
from conch.terminal import console, print_json, print_table
from perf.http_load import LoadResult, run_load
from server import ports
from server.embedded import EmbeddedServer
from server.options import ServerOptions

MODEL = "embeddings"
RESULTS = Path("perf/results")
# The ways to write FastAPI's handler, the fastest first: what each is called, and its route in `perf.fastapi_server`.
HANDLERS = {"declared": "/embed-declared", "dict": "/embed"}
WORDS = (
    "the river order was late again and nobody at the front desk could say when invoice number seven would arrive "
    "or whether our train tickets for Seoul had been refunded after that storm closed every bridge along the coast"
).split(" ")


@dataclass(frozen=True)
class Contender:
    """One server under test: where to post, and how to write a text and read its embedding."""

    name: str
    url: str
    write: Callable[[str], bytes]
    read: Callable[[bytes], Array]


@dataclass(frozen=True)
class Comparison:
    """The medians over the rounds at one number of connections; ratios are the pipeline's over FastAPI's."""

    connections: int
    fastapi_rps: float
    pipeline_rps: float
    rps_ratio: float
    fastapi_p99_ms: float
    pipeline_p99_ms: float
    p99_ratio: float
    failures: int


def texts(count: int = 64, seed: int = 7) -> list[str]:
    """Made-up sentences of 5 to 40 words, the same in every run."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 40))) for _ in range(count)]


@contextmanager
def pipeline_server(repository: Repository) -> Iterator[Contender]:
    """The exported ensemble, served by the embedded Triton."""
    options = ServerOptions(control="explicit", load_models=(MODEL,), http_port=0, grpc_port=0, metrics_port=0)
    with EmbeddedServer(repository.root, options) as server:
        yield Contender(
            name="conch pipeline (Triton)",
            url=f"{server.http_url}/v2/models/{MODEL}/infer",
            write=lambda text: json.dumps(
                {
                    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}],
                    "parameters": {"binary_data_output": True},
                }
            ).encode(),
            read=read_binary_answer,
        )


def read_binary_answer(body: bytes) -> Array:
    """The one output of an answer: JSON that describes it, then its numbers, FP32 [d].

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
    """
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return np.frombuffer(body[end:], dtype="<f4")


@contextmanager
def fastapi_server(repository: Repository, handler: str) -> Iterator[Contender]:
    """FastAPI on the pipeline's own files, with a worker for each core; ``handler`` is one of HANDLERS."""
    model = repository.version_path(f"{MODEL}_model", repository.latest(f"{MODEL}_model"))
    tokenizer = repository.version_path(f"{MODEL}_preprocess", repository.latest(f"{MODEL}_preprocess"))
    output = repository.config(f"{MODEL}_model").output[0].name
    files = {
        "CONCH_BENCH_MODEL": str(model / "model.onnx"),
        "CONCH_BENCH_TOKENIZER": str(tokenizer / "tokenizer.json"),
        "CONCH_BENCH_OUTPUT": output,
    }
    (port,) = ports.choose("127.0.0.1", 1)
    command = [sys.executable, "-m", "uvicorn", "perf.fastapi_server:app", "--port", str(port), "--no-access-log"]
    command += [
        "--workers",
        str(os.cpu_count() or 1),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(command, env=os.environ | files)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}/ready")
        yield Contender(
            name=f"FastAPI ({handler})",
            url=f"{url}{HANDLERS[handler]}",
            write=lambda text: json.dumps({"text": text}).encode(),
            read=lambda body: np.array(json.loads(body)["embedding"]),
        )
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            # Each worker binds before it has loaded the model; one answer is one worker's.
            time.sleep(2)
            return
        except OSError:
            time.sleep(0.1)
    raise ServerError("the FastAPI server did not start", where=url, fix="see its output above")


def check_same_answers(contenders: Sequence[Contender], text: str) -> None:
    """Raise unless all contenders give the same embedding: only then is the comparison fair."""
    answers = []
    for contender in contenders:
        request = urllib.request.Request(
            contender.url, contender.write(text), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answers.append(contender.read(response.read()))
    difference = float(np.abs(answers[0] - answers[1]).max())
    if difference > 1e-5:
        raise ConchError("the servers answer differently", got=difference, expected="at most 1e-5", where=text)


def compare(pipeline: Sequence[LoadResult], fastapi: Sequence[LoadResult]) -> Comparison:
    """The rounds of both servers at one number of connections, as medians; equal rounds pair up for the ratios."""
    median = statistics.median
    return Comparison(
        connections=pipeline[0].connections,
        fastapi_rps=median(r.requests_per_second for r in fastapi),
        pipeline_rps=median(r.requests_per_second for r in pipeline),
        rps_ratio=median(p.requests_per_second / f.requests_per_second for p, f in zip(pipeline, fastapi, strict=True)),
        fastapi_p99_ms=median(r.p99_ms for r in fastapi),
        pipeline_p99_ms=median(r.p99_ms for r in pipeline),
        p99_ratio=median(p.p99_ms / f.p99_ms for p, f in zip(pipeline, fastapi, strict=True)),
        failures=sum(r.failures for r in (*pipeline, *fastapi)),
    )


HEADER = ("connections", "FastAPI req/s", "pipeline req/s", "ratio", "FastAPI p99 ms", "pipeline p99 ms", "ratio")


def rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """The table's rows, as text."""
    return [
        (
            str(c.connections),
            f"{c.fastapi_rps:.0f}",
            f"{c.pipeline_rps:.0f}",
            f"{c.rps_ratio:.2f}",
            f"{c.fastapi_p99_ms:.1f}",
            f"{c.pipeline_p99_ms:.1f}",
            f"{c.p99_ratio:.2f}",
        )
        for c in comparisons
    ]


def write_table(comparisons: Sequence[Comparison], path: Path) -> None:
    """The comparison as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " ---: |" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(comparisons)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_plot(comparisons: Sequence[Comparison], handler: str, path: Path) -> None:
    """Requests per second and p99 over the number of connections, both servers side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rate, tail) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = np.arange(len(comparisons))
    for offset, color, name, kind in (
        (-0.2, "#9aa0a6", f"FastAPI + onnxruntime, handler: {handler}", "fastapi"),
        (0.2, "#76b900", "conch pipeline", "pipeline"),
    ):
        rate.bar(places + offset, [getattr(c, f"{kind}_rps") for c in comparisons], 0.4, color=color, label=name)
        tail.bar(places + offset, [getattr(c, f"{kind}_p99_ms") for c in comparisons], 0.4, color=color, label=name)
    for axes, title in ((rate, "requests per second (more is better)"), (tail, "p99 latency in ms (less is better)")):
        axes.set_title(title)
        axes.set_xticks(places, [str(c.connections) for c in comparisons])
        axes.set_xlabel("connections")
        axes.spines[["top", "right"]].set_visible(False)
        for bars in axes.containers:
            axes.bar_label(bars, fmt="%.0f", fontsize=8)
    figure.legend(*rate.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"MiniLM int8, one text of 5 to 40 words a request, {os.cpu_count()} cores")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _export_if_missing(repository: Repository) -> None:
    if MODEL not in repository.model_names() or not repository.versions(MODEL):
        console.print(f"exporting the {MODEL} sample into {repository.root}")
        subprocess.run(
            [sys.executable, "-m", "conch", "export", "sample", MODEL, "--repository", str(repository.root)],
            check=True,
        )


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), default=Path("model_repository"), show_default=True)
@click.option("--connections", default="1,8,32", show_default=True, help="Numbers of connections, comma-separated.")
@click.option("--duration", "duration_s", default=6.0, show_default=True, help="Seconds a measurement.")
@click.option("--rounds", default=3, show_default=True, help="How often the servers take turns.")
@click.option(
    "--handler",
    type=click.Choice(list(HANDLERS)),
    default="declared",
    show_default=True,
    help="FastAPI's handler: with its response declared, or returning a dict as its tutorial does.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(repository: Path, connections: str, duration_s: float, rounds: int, handler: str, as_json: bool) -> None:
    """Compare the served pipeline with FastAPI + ONNX Runtime on the same model and texts."""
    levels = [int(word) for word in connections.split(",")]
    store = Repository(repository)
    _export_if_missing(store)
    results: dict[tuple[str, int], list[LoadResult]] = {}
    with fastapi_server(store, handler) as fastapi, pipeline_server(store) as pipeline:
        check_same_answers((fastapi, pipeline), texts()[0])
        for turn in range(rounds):
            for level in levels:
                # Who goes first changes with the round, so that neither always meets the warmer machine.
                for contender in (fastapi, pipeline) if turn % 2 == 0 else (pipeline, fastapi):
                    bodies = [contender.write(text) for text in texts()]
                    result = run_load(contender.url, bodies, level, duration_s)
                    results.setdefault((contender.name, level), []).append(result)
                    console.print(
                        f"round {turn + 1}/{rounds}  {level:>3} connections  {contender.name:<24}"
                        f"{result.requests_per_second:8.0f} req/s   p99 {result.p99_ms:7.1f} ms"
                    )
        comparisons = [compare(results[pipeline.name, n], results[fastapi.name, n]) for n in levels]
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {
        "comparisons": [asdict(c) for c in comparisons],
        "runs": [{"server": name} | asdict(r) for (name, _), runs in results.items() for r in runs],
    }
    name = f"compare_servers_{handler}"
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_table(comparisons, RESULTS / f"{name}.md")
    write_plot(comparisons, handler, RESULTS / f"{name}.png")
    print_table(
        HEADER, rows(comparisons), title=f"\nmedians of {rounds} rounds; ratios are pipeline over FastAPI ({handler})"
    )
    console.print(f"\ntable, plot and figures: {RESULTS}/{name}.{{md,png,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
