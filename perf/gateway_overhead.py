"""What the gateway costs: embeddings through it, and from Triton itself, over HTTP.

\b
    python -m perf.gateway_overhead
    python -m perf.gateway_overhead --workers 2
    python -m perf.gateway_overhead --queue-limit 32 --connections 32,64,128,256
    python -m perf.gateway_overhead --quick           # does it run? Its figures say nothing

\b
Triton      POST /v2/models/NAME/infer, JSON in and out: what the gateway is compared with
gateway     /v1/embeddings, numbers in base64 as the openai client asks for them, and as JSON; /predict; /v2 passed
            through

The model is MiniLM in int8, one text of 5 to 40 words a request. They take turns at each number of requests in flight,
another first in each round; differences and ratios are taken within a round. All give the same vectors before anything
is measured. Load, gateway and Triton share the machine's cores. Writes a table and all figures to perf/results/.
"""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console, print_json, print_table
from perf import requirement, result_files
from perf.compare_servers import levels
from perf.contenders.entries import Target
from perf.contenders.gateway_process import gateway
from perf.contenders.prepare import prepare
from perf.contenders.processes import cpu_seconds, post
from perf.contenders.rounds import check_same_answers, idle_cores, in_turn
from perf.contenders.triton import json_target
from perf.contenders.workloads import WORKLOADS
from perf.http_load import JSON, run_load
from perf.load_loop import LoadResult
from perf.points import now, this_machine
from perf.requirement import Requirement, ratio, spread
from perf.result_files import RESULTS
from server.embedded import EmbeddedServer
from server.options import ServerOptions

DIRECT, OPENAI = "Triton, HTTP/JSON", "gateway, /v1/embeddings in base64"
LEVEL = 8  # requests in flight, from which on the gateway is held to its limits: with one, both wait for each other
HEADER = (
    *("in flight", "server", "req/s (min to max)", "p50 ms", "p99 ms", "failed", "p50 ms of these"),
    *("req/s : Triton", "p50 ms more than Triton", "CPU ms a request: Triton", "gateway"),
)


@dataclass(frozen=True)
class Run(LoadResult):
    """A measurement, and the processor time that the two servers took for each request, in ms.

    On a machine that others use too, processor time says more than latency.
    """

    triton_cpu_ms: float = math.nan
    gateway_cpu_ms: float = math.nan


# Requests in flight -> server -> a round each.
Runs = Mapping[int, Mapping[str, Sequence[Run]]]


def measured(target: Target, level: int, duration_s: float, warmup_s: float, pids: tuple[int, int]) -> Run:
    """One run; ``pids`` are Triton's and the gateway's."""
    before = [cpu_seconds([pid]) for pid in pids]
    result = target.load(level, duration_s, warmup_s)
    spent_s = [cpu_seconds([pid]) - earlier for pid, earlier in zip(pids, before, strict=True)]
    requests = max(result.requests_per_second * (duration_s + warmup_s), 1)
    triton_ms, gateway_ms = (1000 * seconds / requests for seconds in spent_s)
    return Run(**asdict(result), triton_cpu_ms=triton_ms, gateway_cpu_ms=gateway_ms)


@contextmanager
def serving(repository: Repository, name: str, **settings: int) -> Iterator[tuple[list[Target], tuple[int, int]]]:
    """Triton, and the ways through a gateway of these settings before it; Triton comes first. And their pids."""
    payloads = WORKLOADS["text"].payloads()
    options = ServerOptions(
        control="explicit", load_models=(name,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=3
    )
    with (
        EmbeddedServer(repository.root, options) as server,
        gateway(server.grpc_url, server.http_url, **settings) as (url, pid),
    ):
        path = f"/v2/models/{name}/infer"
        targets = [
            json_target(DIRECT, server.http_url + path, payloads, (server.pid,)),
            _target(OPENAI, f"{url}/v1/embeddings", _openai(name, "base64"), _from_base64, pid),
            _target(
                "gateway, /v1/embeddings in JSON", f"{url}/v1/embeddings", _openai(name, "float"), _from_floats, pid
            ),
            _target("gateway, /predict", f"{url}/predict/{name}", lambda text: {"text": text}, _from_row, pid),
            json_target("gateway, /v2", url + path, payloads, (pid,)),
        ]
        yield targets, (server.pid, pid)


def _openai(name: str, encoding: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"model": name, "input": text, "encoding_format": encoding}


def _from_base64(answer: Any) -> Any:
    return np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")


def _from_floats(answer: Any) -> Any:
    return np.array(answer["data"][0]["embedding"], np.float32)


def _from_row(answer: Any) -> Any:
    return np.array(answer["embedding"], np.float32)


def _target(name: str, url: str, body: Callable[[str], Any], read: Callable[[Any], Any], pid: int) -> Target:
    """Something that answers a body of JSON with one."""
    bodies = [json.dumps(body(str(payload["text"]))).encode() for payload in WORKLOADS["text"].payloads()]
    return Target(
        name,
        lambda index: {"embedding": read(json.loads(post(url, bodies[index], JSON)[0]))},
        lambda connections, duration_s, warmup_s: run_load(url, bodies, connections, duration_s, warmup_s),
        (pid,),
    )


def added_p50_ms(runs: Runs, level: int, name: str) -> float:
    """How much longer than Triton's is the p50: the median of the differences within a round. NaN when not measured."""
    at = runs.get(level, {})
    if not at.get(name) or len(at[name]) != len(at.get(DIRECT, ())):
        return math.nan
    return statistics.median(mine.p50_ms - its.p50_ms for mine, its in zip(at[name], at[DIRECT], strict=True))


def held_rate(runs: Runs, level: int, name: str) -> float:
    """Requests/s over Triton's."""
    at = runs.get(level, {})
    rates = [[run.requests_per_second for run in at.get(each, ())] for each in (name, DIRECT)]
    return ratio(*rates)


def requirements(runs: Runs) -> list[Requirement]:
    """What the gateway is held to, as the openai client asks it."""
    return [
        Requirement(f"p50 ms that it adds at {LEVEL} in flight", added_p50_ms(runs, LEVEL, OPENAI), 2, at_least=False),
        *(
            Requirement(f"requests/s : Triton's, at {level} in flight", held_rate(runs, level, OPENAI), 0.8)
            for level in runs
            if level >= LEVEL
        ),
    ]


def rows(runs: Runs) -> list[tuple[str, ...]]:
    """Every server at each number of requests in flight."""
    return [
        (
            str(level),
            name,
            spread([run.requests_per_second for run in own], 0),
            f"{statistics.median(run.p50_ms for run in own):.2f}",
            f"{statistics.median(run.p99_ms for run in own):.1f}",
            *_failed(own),
            *(("", "") if name == DIRECT else _compared(runs, level, name)),
            f"{statistics.median(run.triton_cpu_ms for run in own):.2f}",
            "" if name == DIRECT else f"{statistics.median(run.gateway_cpu_ms for run in own):.2f}",
        )
        for level, at in runs.items()
        for name, own in at.items()
    ]


def _failed(own: Sequence[Run]) -> tuple[str, str]:
    """How many requests failed or were refused, and how soon."""
    those = [run for run in own if run.failures]
    if not those:
        return "", ""
    return str(sum(run.failures for run in those)), f"{statistics.median(run.failure_p50_ms for run in those):.1f}"


def _compared(runs: Runs, level: int, name: str) -> tuple[str, str]:
    return f"{held_rate(runs, level, name):.2f}", f"{added_p50_ms(runs, level, name):+.2f}"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="The gateway's processes.")
@click.option(
    "--queue-limit",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="Requests in flight that the gateway takes; the next is refused.",
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=RESULTS / "repository",
    show_default=True,
    help="Where the samples are exported to, when they are not there; remove it to export again.",
)
@click.option("--connections", callback=levels, default="1,8,32", show_default=True, help="Requests in flight.")
@click.option("--duration", "duration_s", default=4.0, show_default=True, help="Seconds a measurement.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often they take turns.")
@click.option("--quick", is_flag=True, help="One round of short measurements, to see that it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    workers: int,
    queue_limit: int,
    repository: Path,
    connections: tuple[int, ...],
    duration_s: float,
    rounds: int,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure the gateway."""
    warmup_s = 1.0
    if quick:
        duration_s, warmup_s, rounds = 0.5, 0.2, 1
    store, name = Repository(repository), next(iter(WORKLOADS["text"].forms))
    runs: dict[int, dict[str, list[Run]]] = {level: {} for level in connections}
    try:
        prepare(WORKLOADS["text"], store)
        with serving(store, name, workers=workers, queue_limit=queue_limit) as (targets, pids):
            for target in targets:
                check_same_answers(targets[0], target, exact=True)
            idle = {target.name: idle_cores([target]) for target in targets[:2]}
            for turn in range(rounds):
                for level in connections:
                    for target in in_turn(targets, turn):
                        run = measured(target, level, duration_s, warmup_s, pids)
                        runs[level].setdefault(target.name, []).append(run)
                        console.print(
                            f"round {turn + 1}/{rounds}  {level:>3} in flight  {target.name:<34}"
                            f"{run.requests_per_second:8.0f} req/s   p50 {run.p50_ms:7.2f} ms",
                            markup=False,
                        )
    except ConchError as error:
        raise click.ClickException(str(error)) from error
    how = f"{rounds} rounds of {duration_s:g} s, {workers} gateway process{'es' if workers > 1 else ''}"
    _write(runs, idle, how, RESULTS / f"gateway_overhead{'_quick' if quick else ''}", as_json=as_json)


def _write(runs: Runs, idle: Mapping[str, float], how: str, path: Path, *, as_json: bool) -> None:
    machine, held, table = this_machine("Triton 2.51.0, embedded"), requirements(runs), rows(runs)
    document = result_files.plain(
        {
            "at": now(),
            "machine": asdict(machine),
            "how": how,
            "idle_cores": idle,
            "requirements": [each.document() for each in held],
            "runs": [{"server": name} | asdict(run) for at in runs.values() for name, own in at.items() for run in own],
        }
    )
    lines = [
        f"{result_files.described(machine)}; {document['at']}",
        "",
        f"{WORKLOADS['text'].title}; medians of {how}; compared within a round.",
        "",
        *result_files.markdown(HEADER, table),
        "",
        *result_files.markdown(requirement.HEADER, [each.row() for each in held]),
    ]
    result_files.write(path, document, lines)
    print_table(HEADER, table, title=f"\n{WORKLOADS['text'].title}")
    print_table(requirement.HEADER, [each.row() for each in held], title="\nheld to")
    console.print(f"\ntable and figures: {path}.{{md,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
