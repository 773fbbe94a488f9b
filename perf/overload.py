"""Does throughput hold as more and more requests are in flight? `python -m perf.overload NAME`, or `--tiny`.

Each number in flight is measured several times, on the way up and on the way down in turn, so that a machine that
grows warm or busy does not pass for a model that collapses; medians are compared. A step that loses more than 10 %
against the one before it is named, and the command fails; as it does when requests fail, but for those beyond the
model's max_queue_size, which must be refused.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from conch.errors import ConchError
from conch.repository import Repository
from conch.tensor_spec import Array
from conch.terminal import console, print_json, print_table
from perf.load_loop import LoadResult
from perf.server_usage import usage

if TYPE_CHECKING:
    from conch.model_config import ModelConfigMessage
    from server.embedded import EmbeddedServer

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROTOCOLS = ("http", "grpc")
# One added step may cost this much of the throughput before it.
ALLOWED_LOSS = 0.10
TINY = "tiny"

HEADER = (
    *("in flight", "requests/s", "of the step before", "p50 ms", "p99 ms", "server CPU ms"),
    *("failures", "p50 ms of these"),
)

# Datatype and array of each input.
Tensors = Mapping[str, tuple[str, Array]]
# Measures one number in flight.
Measure = Callable[[int], LoadResult]


@dataclass(frozen=True)
class Step:
    """One number in flight: medians over the rounds, of good answers; ``failures`` are all of theirs.

    ``of_before`` is the throughput over that of the step before (None for the first), ``of_best`` over the best up to
    here. ``server_cpu_ms`` is what the server's processes spent on a request, warm-up included: on a machine with other
    work it tells more than the throughput does.
    """

    in_flight: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    of_before: float | None
    of_best: float
    server_cpu_ms: float | None = None
    failure_p50_ms: float = math.nan

    @property
    def collapses(self) -> bool:
        """Whether this step loses more than is allowed."""
        return self.of_before is not None and self.of_before < 1 - ALLOWED_LOSS

    def fails(self, queue_limit: int | None) -> bool:
        """Whether requests failed that no limit of the model's queue stands against."""
        return bool(self.failures) and (queue_limit is None or self.in_flight <= queue_limit)


def climb(measure: Measure, levels: Sequence[int], rounds: int, cpu_s: Callable[[], float] | None = None) -> list[Step]:
    """Measure every level ``rounds`` times, up and down in turn; ``cpu_s`` tells what the server has used so far."""
    runs: dict[int, list[LoadResult]] = {level: [] for level in levels}
    spent_ms: dict[int, list[float]] = {level: [] for level in levels}
    for turn in range(rounds):
        for level in levels if turn % 2 == 0 else reversed(levels):
            before_s = cpu_s() if cpu_s else 0.0
            run = measure(level)
            runs[level].append(run)
            if cpu_s and run.requests:
                spent_ms[level].append((cpu_s() - before_s) * 1000 / run.requests)
    found = steps(runs)
    return [replace(s, server_cpu_ms=statistics.median(own)) if (own := spent_ms[s.in_flight]) else s for s in found]


def steps(runs: Mapping[int, Sequence[LoadResult]]) -> list[Step]:
    """The medians of the runs, each beside the step before."""
    found: list[Step] = []
    best = 0.0
    for level, own in sorted(runs.items()):
        rate = statistics.median(run.requests_per_second for run in own)
        best = max(best, rate)
        before = found[-1].requests_per_second if found else None
        found.append(
            Step(
                in_flight=level,
                requests_per_second=rate,
                p50_ms=statistics.median(run.p50_ms for run in own),
                p99_ms=statistics.median(run.p99_ms for run in own),
                failures=sum(run.failures for run in own),
                of_before=rate / before if before else None,
                of_best=rate / best if best else 0.0,
                failure_p50_ms=statistics.median([run.failure_p50_ms for run in own if run.failures] or [math.nan]),
            )
        )
    return found


def queue_limit(config: ModelConfigMessage) -> int | None:
    """How many requests may wait for a model; None for any number."""
    return int(config.dynamic_batching.default_queue_policy.max_queue_size) or None


def http_body(inputs: Tensors) -> bytes:
    """A request in JSON that asks for binary tensors."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "data": _plain(array)}
        for name, (datatype, array) in inputs.items()
    ]
    return json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()


def grpc_message(model: str, inputs: Tensors) -> bytes:
    """The same request as a serialized ModelInferRequest."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import serialize_byte_tensor

    request = service_pb2.ModelInferRequest(model_name=model)
    for name, (datatype, array) in inputs.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def _plain(array: Array) -> list[Any]:
    return [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]


def measure_over(protocol: str, url: str, model: str, requests: Sequence[Tensors], duration_s: float) -> Measure:
    """What measures a model over one protocol; ``url`` is the server's http:// or grpc:// address."""
    if protocol == "http":
        from perf.http_load import run_load

        bodies = [http_body(inputs) for inputs in requests]
        target = f"{url}/v2/models/{model}/infer"
        return lambda level: run_load(target, bodies, level, duration_s, warmup_s=0.3)
    from perf.grpc_load import run_grpc_load

    messages = [grpc_message(model, inputs) for inputs in requests]
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 8001
    return lambda level: run_grpc_load(host, port, messages, level, duration_s, warmup_s=0.3)


@contextmanager
def served(name: str, repository: Path) -> Iterator[tuple[EmbeddedServer, dict[str, str], list[Tensors]]]:
    """A server of the model's own, its address by protocol, and requests to send (the manifest's golden ones)."""
    from server import tiny_models
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    with tempfile.TemporaryDirectory(prefix="conch-overload-") as scratch:
        if name == TINY:
            repository = Path(scratch)
            tiny_models.write_single(repository, TINY, 1)
            tiny_models.record(repository, TINY, 1)
        requests = golden_requests(repository, name)
        options = ServerOptions(
            control="explicit", load_models=(name,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
        )
        with EmbeddedServer(repository, options) as server:
            yield server, {"http": server.http_url, "grpc": server.grpc_url}, requests


def golden_requests(root: Path, name: str) -> list[Tensors]:
    """The golden requests of a model's latest version: datatype and array by input. Raises: ConchError."""
    from conch.manifest import tensor_from_json
    from conch.model_config import signature_of

    repository = Repository(root)
    manifest = repository.manifest(name, repository.latest(name))
    if manifest is None or not manifest.golden:
        raise ConchError("the model has no golden requests to send", where=root / name, fix="export it with conch")
    types = {spec.name: spec.datatype for spec in signature_of(repository.config(name)).inputs}
    return [
        {tensor: (types[tensor], tensor_from_json(value)) for tensor, value in golden.inputs.items()}
        for golden in manifest.golden
    ]


@click.command()
@click.argument("name", default=TINY)
@click.option("--repository", type=click.Path(path_type=Path), default="model_repository", show_default=True)
@click.option("--in-flight", "levels", default=",".join(map(str, LEVELS)), show_default=True)
@click.option("--protocol", type=click.Choice(["both", *PROTOCOLS]), default="both", show_default=True)
@click.option("--duration", "duration_s", default=2.0, show_default=True, help="Seconds a measurement.")
@click.option("--rounds", default=3, show_default=True, help="How often each number is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    name: str, repository: Path, levels: str, protocol: str, duration_s: float, rounds: int, as_json: bool
) -> None:
    """Measure NAME with more and more requests in flight, in a server of its own; without a NAME, a tiny model.

    \b
    Examples:
      python -m perf.overload
      python -m perf.overload churn --in-flight 1,8,64,256 --protocol http
    """
    numbers = sorted({int(word) for word in levels.split(",")})
    chosen = PROTOCOLS if protocol == "both" else (protocol,)
    found: dict[str, list[Step]] = {}
    with served(name, repository) as (server, urls, requests):
        for each in chosen:
            measure = measure_over(each, urls[each], name, requests, duration_s)
            found[each] = climb(measure, numbers, rounds, lambda: usage(server.pid, (), 0.0).cpu_s)
            print_table(
                HEADER,
                [_row(step) for step in found[each]],
                title=f"{name} over {each}",
            )
    if as_json:
        print_json({each: [asdict(step) for step in own] for each, own in found.items()})
    limit = queue_limit(Repository(repository).config(name)) if name != TINY else None
    lost = [(each, step) for each, own in found.items() for step in own if step.collapses or step.fails(limit)]
    for each, step in lost:
        console.print(f"{each}: {step.in_flight} in flight: {step.failures} failures, {_percent(step.of_before)}")
    if lost:
        raise SystemExit(1)


def _row(step: Step) -> list[str]:
    figures = (step.in_flight, f"{step.requests_per_second:.0f}", _percent(step.of_before))
    failed = (str(step.failures), f"{step.failure_p50_ms:.1f}") if step.failures else ("", "")
    return [*map(str, figures), f"{step.p50_ms:.1f}", f"{step.p99_ms:.1f}", _cpu(step), *failed]


def _cpu(step: Step) -> str:
    return "-" if step.server_cpu_ms is None else f"{step.server_cpu_ms:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


if __name__ == "__main__":
    main()
