"""`make bench`: served pipelines beside FastAPI + ONNX Runtime, on the same file, texts and machine, in one run.

All serve the same file, the int8 MiniLM of the `embeddings` sample, one text a request, each as its users would:

FastAPI, defaults   its response declared (the fastest handler that was found), a worker a core, one thread a session,
                    ONNX Runtime's own optimizations; JSON in and out
FastAPI, tuned      the same with the graph level that our export chose for this file
conch, ensemble     a model each for tokenizer and graph, with the settings that its export wrote; JSON in and the
                    binary tensors out that Triton's clients ask for
conch, single       the same as one model, exported with --pipeline single

The servers take turns at each number of connections, in several rounds; ratios are taken within a round, over the
better FastAPI. Writes a table, a plot and all figures to perf/results/.
"""

from __future__ import annotations

import json
import os
import random
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
from perf.standings import HEADER, compare, rows, write_plot, write_table
from server import ports
from server.embedded import EmbeddedServer
from server.options import ServerOptions

SAMPLE = "embeddings"
# Model names -> the form in which the sample is exported under them.
MODELS = {SAMPLE: "ensemble", f"{SAMPLE}_single": "single"}
GRAPH = f"{SAMPLE}_model"
RESULTS = Path("perf/results")
# optimization.graph.level of config.pbtxt -> what ONNX Runtime calls it; any other level is all of them.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
DEFAULT_LEVEL = "ORT_ENABLE_ALL"
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


def texts(count: int = 64, seed: int = 7) -> list[str]:
    """Made-up sentences of 5 to 40 words, the same in every run."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 40))) for _ in range(count)]


@contextmanager
def triton_server(repository: Repository) -> Iterator[list[Contender]]:
    """Every form of the sample, in one embedded Triton: those that are not asked wait, and take no time."""
    options = ServerOptions(control="explicit", load_models=tuple(MODELS), http_port=0, grpc_port=0, metrics_port=0)
    with EmbeddedServer(repository.root, options) as server:
        yield [
            Contender(
                name=f"conch, {form}",
                url=f"{server.http_url}/v2/models/{name}/infer",
                write=write_triton_request,
                read=read_binary_answer,
            )
            for name, form in MODELS.items()
        ]


def write_triton_request(text: str) -> bytes:
    """A text as JSON, asking for the answer as a binary tensor."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()


def read_binary_answer(body: bytes) -> Array:
    """The one output of an answer: JSON that describes it, then its numbers, FP32 [d].

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
    """
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return np.frombuffer(body[end:], dtype="<f4")


@contextmanager
def fastapi_server(repository: Repository, name: str, graph_level: str) -> Iterator[Contender]:
    """FastAPI on the ensemble's own files, with a worker for each core."""
    model = repository.version_path(GRAPH, repository.latest(GRAPH))
    tokenizer = repository.version_path(f"{SAMPLE}_preprocess", repository.latest(f"{SAMPLE}_preprocess"))
    settings = {
        "CONCH_BENCH_MODEL": str(model / "model.onnx"),
        "CONCH_BENCH_TOKENIZER": str(tokenizer / "tokenizer.json"),
        "CONCH_BENCH_OUTPUT": repository.config(GRAPH).output[0].name,
        "CONCH_BENCH_GRAPH_LEVEL": graph_level,
    }
    (port,) = ports.choose("127.0.0.1", 1)
    command = [sys.executable, "-m", "uvicorn", "perf.fastapi_server:app", "--port", str(port), "--no-access-log"]
    command += ["--workers", str(os.cpu_count() or 1), "--loop", "uvloop", "--http", "httptools"]
    process = subprocess.Popen([*command, "--log-level", "error"], env=os.environ | settings)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}/ready")
        yield Contender(
            name=name,
            url=f"{url}/embed",
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
    for contender, answer in zip(contenders, answers, strict=True):
        difference = float(np.abs(answers[0] - answer).max())
        if difference > 1e-5:
            raise ConchError(
                f"{contender.name} answers otherwise than {contenders[0].name}",
                got=difference,
                expected="at most 1e-5",
                where=text,
            )


def in_turn(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """The order in a round: another goes first each time, so that none always meets the warmer machine."""
    first = turn % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def export_missing(repository: Repository) -> None:
    """Export the sample in each form that is not there. Raises: ConchError when their graphs are not the same file."""
    for name, form in MODELS.items():
        if name in repository.model_names() and repository.versions(name):
            continue
        console.print(f"exporting the {SAMPLE} sample as {name} into {repository.root}")
        command = [sys.executable, "-m", "conch", "export", "sample", SAMPLE, "--name", name, "--pipeline", form]
        subprocess.run([*command, "--repository", str(repository.root)], check=True)
    digests = {}
    for name in (GRAPH, f"{SAMPLE}_single"):
        manifest = repository.manifest(name, repository.latest(name))
        digests[name] = manifest.files["model.onnx"] if manifest is not None else None
    if len(set(digests.values())) > 1:
        raise ConchError(
            "the forms of the sample hold different graphs: they were exported at different times",
            where=repository.root,
            got=digests,
            fix=f"remove {repository.root}, and run again",
        )


@click.command()
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=RESULTS / "repository",
    show_default=True,
    help="Where the sample is exported to, when it is not there; remove it to export again.",
)
@click.option("--connections", default="1,8,32", show_default=True, help="Numbers of connections, comma-separated.")
@click.option("--duration", "duration_s", default=5.0, show_default=True, help="Seconds a measurement.")
@click.option("--rounds", default=4, show_default=True, help="How often the servers take turns.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(repository: Path, connections: str, duration_s: float, rounds: int, as_json: bool) -> None:
    """Compare served pipelines with FastAPI + ONNX Runtime on the same model and texts."""
    levels = [int(word) for word in connections.split(",")]
    store = Repository(repository)
    export_missing(store)
    ours = GRAPH_LEVELS.get(store.config(GRAPH).optimization.graph.level, DEFAULT_LEVEL)
    results: dict[int, dict[str, list[LoadResult]]] = {}
    with (
        fastapi_server(store, "FastAPI, defaults", DEFAULT_LEVEL) as plain,
        fastapi_server(store, "FastAPI, tuned", ours) as tuned,
        triton_server(store) as pipelines,
    ):
        rivals = (plain, tuned)
        contenders = (*rivals, *pipelines)
        check_same_answers(contenders, texts()[0])
        for level in levels:
            results[level] = {contender.name: [] for contender in contenders}
        for turn in range(rounds):
            for level in levels:
                for contender in in_turn(contenders, turn):
                    bodies = [contender.write(text) for text in texts()]
                    result = run_load(contender.url, bodies, level, duration_s)
                    results[level][contender.name].append(result)
                    console.print(
                        f"round {turn + 1}/{rounds}  {level:>3} connections  {contender.name:<20}"
                        f"{result.requests_per_second:8.0f} req/s   p99 {result.p99_ms:7.1f} ms"
                    )
        names = [rival.name for rival in rivals]
    standings = [standing for level in levels for standing in compare(results[level], names)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {
        "standings": [asdict(standing) for standing in standings],
        "runs": [
            {"server": name} | asdict(run) for level in levels for name, own in results[level].items() for run in own
        ],
    }
    path = RESULTS / "compare_servers"
    path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_table(standings, path.with_suffix(".md"))
    write_plot(standings, path.with_suffix(".png"))
    print_table(HEADER, rows(standings), title=f"\nmedians of {rounds} rounds; ratios within a round")
    console.print(f"\ntable, plot and figures: {path}.{{md,png,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
