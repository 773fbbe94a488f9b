"""Read results of any kind, and lay their points out as series that can be drawn and compared. No drawing here."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from perf.points import Load, Machine, Point, RunResult, from_document
from perf.sweep import record

SERVER_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Row:
    """A point, and which result and which number of instances it belongs to (None: as the config has it)."""

    result: str
    instances: int | None
    point: Point

    @property
    def network_and_client_ms(self) -> float | None:
        """What of the mean latency is not the server's; None where the server's parts or the mean are not known."""
        if not self.point.server_ms or "avg" not in self.point.latency_ms:
            return None
        return max(0.0, self.point.latency_ms["avg"] - sum(self.point.server_ms.get(p, 0.0) for p in SERVER_PARTS))


@dataclass(frozen=True)
class Failure:
    """A combination that was tried and could not be measured."""

    result: str
    what: str
    error: str


@dataclass(frozen=True)
class Result:
    """One result's file. ``configs`` are pairs of a heading and the text of config.pbtxt; ``unfinished`` says what is
    missing, "" when nothing is.
    """

    title: str
    path: Path
    at: str
    machine: Machine
    model: str
    version: str
    configs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...] = ()
    unfinished: str = ""


@dataclass(frozen=True)
class Series:
    """Points that differ in nothing but how much was asked; lowest load first, one point a level."""

    label: str
    rows: tuple[Row, ...]

    @property
    def levels(self) -> list[str]:
        """How each point's load is written on an axis."""
        return [level(row.point.load) for row in self.rows]


def level(load: Load) -> str:
    """The load without its kind: `8`, or `100/s`."""
    return str(load.concurrency) if load.concurrency is not None else f"{load.request_rate_per_second:g}/s"


def read_all(paths: Sequence[Path]) -> list[Result]:
    """The results in files and folders, in the order given; titles are made unlike each other.

    Raises: ConchError when one is missing, is no result, or holds no point and no failure.
    """
    files = [file for path in paths for file in _files(path)]
    results = [_read(file) for file in dict.fromkeys(files)]
    titles = [result.title for result in results]
    if len(set(titles)) < len(titles):
        titles = [f"{r.title}, {r.at}" for r in results]
    if len(set(titles)) < len(titles):
        titles = [f"{r.title} ({r.path.name})" for r in results]
    if len(set(titles)) < len(titles):
        titles = [f"{r.title} ({r.path})" for r in results]
    return [_renamed(result, title) for result, title in zip(results, titles, strict=True)]


def series_of(results: Iterable[Result]) -> list[Series]:
    """The points of all results as series, each named by what sets it apart from the others.

    Of points that repeat a level the one of median throughput stands for all.
    """
    grouped: dict[tuple[str, ...], dict[float, list[Row]]] = {}
    for result in results:
        for row in result.rows:
            load = row.point.load
            asked = float(load.concurrency or load.request_rate_per_second or 0)
            grouped.setdefault(_traits(row), {}).setdefault(asked, []).append(row)
    varying = [len(set(values)) > 1 for values in zip(*grouped, strict=True)]
    found = []
    for traits, by_level in grouped.items():
        words = [word for word, varies in zip(traits, varying, strict=True) if varies and word]
        rows = tuple(_median(by_level[asked]) for asked in sorted(by_level))
        found.append(Series(", ".join(words) or traits[0], rows))
    return found


def _traits(row: Row) -> tuple[str, ...]:
    """All in which series may differ, as words for a legend."""
    load = row.point.load
    return (
        row.result,
        "" if row.instances is None else f"instances {row.instances}",
        f"batch {load.batch_size}",
        load.protocol + (" streaming" if load.streaming else ""),
        "shared memory" if load.shared_memory != "none" else "",
        "closed loop" if load.concurrency is not None else f"open loop, {load.arrivals}",
    )


def _median(rows: Sequence[Row]) -> Row:
    middle = statistics.median_low(row.point.inferences_per_second for row in rows)
    return next(row for row in rows if row.point.inferences_per_second == middle)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / record.FILE).is_file():
        return [path / record.FILE]
    found = sorted(path.glob("*.json"))
    if not found:
        raise ConchError(
            "there is no result in the folder",
            where=path,
            expected=f"{record.FILE}, or files that `conch perf run` wrote",
            fix="name a result's file",
        )
    return found


def _read(path: Path) -> Result:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConchError("a result cannot be read", where=path, got=error.strerror) from error
    except ValueError as error:
        raise ConchError("a result is no JSON", where=path, got=error) from error
    if not isinstance(document, dict):
        document = {}
    if document.get("kind") == record.KIND:
        found = _of_sweep(record.from_json(document, path), path)
    else:
        found = _of_run(from_document(document, path), path)
    if not found.rows and not found.failures:
        raise ConchError("the result holds no point", where=path, fix="measure again")
    return found


def _of_run(result: RunResult, path: Path) -> Result:
    return Result(
        title=result.name,
        path=path,
        at=result.at,
        machine=result.machine,
        model=result.model,
        version=result.version,
        configs=(("config.pbtxt", result.config_text),) if result.config_text else (),
        notes=result.notes,
        rows=tuple(Row(result.name, None, point) for point in result.points),
    )


def _of_sweep(sweep: record.Sweep, path: Path) -> Result:
    configs = []
    for run in sweep.runs:
        instances = "" if run.instances is None else f", instances {run.instances}"
        configs.append((f"config.pbtxt{instances}", run.result.config_text))
    left = len(sweep.left)
    return Result(
        title=sweep.name,
        path=path,
        at=sweep.at,
        machine=sweep.machine,
        model=sweep.plan.template.model,
        version=next((run.result.version for run in sweep.runs), sweep.plan.template.version),
        configs=tuple(configs),
        notes=(*sweep.notes, *dict.fromkeys(note for run in sweep.runs for note in run.result.notes)),
        rows=tuple(Row(sweep.name, run.instances, point) for run in sweep.runs for point in run.result.points),
        failures=tuple(Failure(sweep.name, failed.cell.label, failed.error) for failed in sweep.failed),
        unfinished=f"{left} of {len(sweep.plan.cells)} combinations not measured yet" if left else "",
    )


def _renamed(result: Result, title: str) -> Result:
    return dataclasses.replace(
        result,
        title=title,
        rows=tuple(dataclasses.replace(row, result=title) for row in result.rows),
        failures=tuple(dataclasses.replace(failure, result=title) for failure in result.failures),
    )
