"""A run from end to end: the server that is measured, the loads one after the other, and the result with its notes."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clients.address import parse_address
from conch.errors import ConchError, ServerError
from perf.analyzer.inputs import Inputs
from perf.analyzer.measure import LoadFailed, measure
from perf.analyzer.served import ServedModel
from perf.points import Load, Machine, Point, RunResult
from perf.run.memory import Sample, slope_per_minute, used_megabytes

if TYPE_CHECKING:
    from server.embedded import EmbeddedServer

OnLine = Callable[[str], None]
# A later point of the same load: from here on the run says that it drifted, or did not recover.
DRIFT = 1.25


@dataclass(frozen=True)
class Place:
    """A running server. ``pid`` is where its memory can be seen, None where it runs elsewhere or cannot be told."""

    url: str
    pid: int | None = None


@dataclass(frozen=True)
class Step:
    """One load was tried: its point, or why there is none; and the server's memory then."""

    load: Load
    point: Point | None
    failure: str = ""
    memory: Sample | None = None


@contextmanager
def place(name: str, repository: Path, protocol: str, *, url: str | None, serve: bool) -> Iterator[Place]:
    """The server to measure: the one at ``url``; a server of our own with ``serve``; or the one that serves the
    repository. Raises: ServerError when there is none.
    """
    from server.running import find_running

    if serve:
        with _own(name, repository) as server:
            yield Place(server.grpc_url if protocol == "grpc" else server.http_url, server.pid)
        return
    running = find_running(repository)
    if url is not None:
        address = parse_address(url)
        ours = running is not None and str(address) in (running.http_url, running.grpc_url)
        yield Place(str(address), running.pid if running is not None and ours else None)
        return
    if running is None:
        raise ServerError(
            f"no server serves {repository}",
            fix="start one with `conch serve`, name a server with --url, "
            "or let this command start one for the run with --serve",
        )
    yield Place(running.grpc_url if protocol == "grpc" else running.http_url, running.pid)


@contextmanager
def _own(name: str, repository: Path) -> Iterator[EmbeddedServer]:
    """An embedded server with this one model, gone after the block."""
    from conch.repository import Repository
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    Repository(repository).model_path(name)  # with the nearest name, before a server is started in vain
    options = ServerOptions(
        control="explicit", load_models=(name,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
    )
    with EmbeddedServer(repository, options) as server:
        yield server


def steps(
    loads: Sequence[Load], place: Place, inputs: Inputs, raw: Path, *, on_line: OnLine | None = None
) -> Iterator[Step]:
    """Measure one load after the other; perf_analyzer's CSVs go into the folder ``raw``.

    A load that fails is told, and the next is tried. Raises: ConchError when not one could be measured, or the
    server is gone.
    """
    measured = False
    for number, load in enumerate(loads, 1):
        csv_path = raw / f"{number:02}-{re.sub(r'[^0-9a-z.]+', '-', load.label)}.csv"
        try:
            point = measure(load, place.url, inputs, on_line=on_line, csv_path=csv_path)
        except LoadFailed as failure:
            if not measured and number == len(loads):
                raise
            yield Step(load, None, f"{failure.what}: {failure.got}")
            continue
        measured = True
        held = used_megabytes(place.pid) if place.pid is not None else None
        yield Step(load, point, memory=None if held is None else Sample(time.monotonic(), held))


def result(
    name: str, at: str, machine: Machine, served: ServedModel, done: Sequence[Step], origin: str, asked: int
) -> RunResult:
    """The steps as a result, with notes on what a table does not show."""
    points = tuple(step.point for step in done if step.point is not None)
    notes = [f"inputs: {origin}"]
    notes += [f"{step.load.label} could not be measured: {step.failure}" for step in done if step.point is None]
    if len(done) < asked:
        notes.append(f"stopped after {len(done)} of {asked} loads")
    notes += drifts(points)
    notes += memory_notes([step.memory for step in done if step.memory is not None])
    return RunResult(name, at, machine, served.name, served.version, served.config_text, points, tuple(notes))


def drifts(points: Sequence[Point]) -> list[str]:
    """How a load that was measured more than once ended, against how it began."""
    found = []
    for load in dict.fromkeys(point.load for point in points):
        same = [point for point in points if point.load == load]
        first, last = same[0], same[-1]
        if len(same) < 2:
            continue
        slower = last.latency_ms["p99"] > first.latency_ms["p99"] * DRIFT
        fewer = last.requests_per_second * DRIFT < first.requests_per_second
        verdict = "it got worse" if slower or fewer else "it got no worse"
        found.append(
            f"{load.label}, {len(same)} times: {first.requests_per_second:.0f}/s and p99 "
            f"{first.latency_ms['p99']:.1f} ms at first, {last.requests_per_second:.0f}/s and "
            f"{last.latency_ms['p99']:.1f} ms at last: {verdict}"
        )
    return found


def memory_notes(samples: Sequence[Sample]) -> list[str]:
    """What the server's memory did, over three points or more."""
    slope = slope_per_minute(samples)
    if slope is None:
        return []
    minutes = (samples[-1].at_s - samples[0].at_s) / 60
    told = f"the server's memory: {samples[0].megabytes:.0f} MB at first, {samples[-1].megabytes:.0f} MB at last"
    # Within a minute it is still warming up: a slope of that would frighten for nothing.
    return [told + (f", slope {slope:+.2f} MB a minute over {minutes:.1f} minutes" if minutes >= 1 else "")]


def loads_for(served: ServedModel, loads: Sequence[Load]) -> tuple[tuple[Load, ...], list[str]]:
    """The loads as this model takes them, and what was changed. Raises: ConchError when it cannot take them."""
    most = served.signature.max_batch_size
    wrong = next((load for load in loads if load.batch_size > max(most, 1)), None)
    if wrong is not None:
        raise ConchError(
            f"{served.name} takes no such batch",
            got=f"batch size {wrong.batch_size}",
            expected=f"at most {most}" if most else "1: its max_batch_size is 0",
        )
    if served.decoupled and not all(load.streaming for load in loads):
        streamed = tuple(dataclasses.replace(load, streaming=True) for load in loads)
        return streamed, ["measured over streams: the model answers a request more than once"]
    return tuple(loads), []
