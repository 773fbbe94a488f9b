"""What a measurement is: the load that was asked for, what was measured under it, and where; and its file.

Everything that measures returns these, and everything that shows results reads them. The JSON carries units in its keys
and a format number; `load` reads back what `save` wrote.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from conch.errors import ConchError

FORMAT = 1
PROTOCOLS = ("grpc", "http")
ARRIVALS = ("constant", "poisson")
SHARED_MEMORY = ("none", "system")


@dataclass(frozen=True)
class Load:
    """What is asked of a server: closed loop (``concurrency`` in flight) or open loop (``request_rate_per_second``).

    ``version`` "" is the one that Triton chooses. ``batch_size`` is rows a request. A measurement lasts windows of
    ``window_ms``, until throughput and the ``percentile``'s latency of three in a row lie within
    ``stability_percent``, or ``max_trials`` are spent: then the point is marked unstable.
    """

    model: str
    version: str = ""
    protocol: str = "grpc"
    concurrency: int | None = None
    request_rate_per_second: float | None = None
    arrivals: str = "constant"
    batch_size: int = 1
    shared_memory: str = "none"
    streaming: bool = False
    window_ms: int = 5000
    stability_percent: float = 10.0
    max_trials: int = 10
    percentile: int = 99

    def __post_init__(self) -> None:
        """Refuse a load that says nothing, or two things. Raises: ConchError."""
        if (self.concurrency is None) == (self.request_rate_per_second is None):
            raise ConchError(
                "A load is either so many requests in flight, or so many a second",
                got=f"concurrency {self.concurrency}, request rate {self.request_rate_per_second}",
                expected="exactly one of the two",
            )
        choices: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("protocol", self.protocol, PROTOCOLS),
            ("arrivals", self.arrivals, ARRIVALS),
            ("shared_memory", self.shared_memory, SHARED_MEMORY),
        )
        for name, got, allowed in choices:
            if got not in allowed:
                raise ConchError(f"A load's {name} is unknown", got=got, expected=" or ".join(allowed))
        numbers = (
            ("concurrency", self.concurrency),
            ("request_rate_per_second", self.request_rate_per_second),
            ("batch_size", self.batch_size),
            ("window_ms", self.window_ms),
            ("stability_percent", self.stability_percent),
            ("max_trials", self.max_trials),
        )
        for name, number in numbers:
            if number is not None and number <= 0:
                raise ConchError(f"A load's {name} must be above zero", got=number)
        if not 1 <= self.percentile <= 99:
            raise ConchError("A load's percentile is out of range", got=self.percentile, expected="1 to 99")
        if self.arrivals == "poisson" and self.request_rate_per_second is None:
            raise ConchError(
                "Poisson arrivals need a request rate",
                got=f"concurrency {self.concurrency}",
                fix="give --request-rate instead of --concurrency: arrivals are random only in an open loop",
            )
        if self.streaming and self.protocol != "grpc":
            raise ConchError("Streaming is gRPC's", got=f"protocol {self.protocol}", fix="use --protocol grpc")

    @property
    def label(self) -> str:
        """A short name: `8 in flight`, `100/s poisson`."""
        if self.concurrency is not None:
            return f"{self.concurrency} in flight"
        arrivals = " poisson" if self.arrivals == "poisson" else ""
        return f"{self.request_rate_per_second:g}/s{arrivals}"


@dataclass(frozen=True)
class Point:
    """What was measured under one load.

    ``latency_ms``: avg, p50, p90, p95, p99, as the client saw it. ``server_ms``: queue, compute_input, compute_infer,
    compute_output, means a request; for an ensemble the sums over its steps. ``requests`` were answered within the
    windows that count, ``failures`` answered with an error. ``average_batch``: rows an execution; ``batch_sizes``:
    executions by rows; both only where the server tells. ``stable`` False marks figures that should not be trusted;
    ``warnings`` say why.
    """

    load: Load
    requests_per_second: float
    inferences_per_second: float
    latency_ms: Mapping[str, float]
    server_ms: Mapping[str, float] = field(default_factory=dict)
    average_batch: float | None = None
    requests: int = 0
    failures: int = 0
    stable: bool = True
    warnings: tuple[str, ...] = ()
    batch_sizes: Mapping[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """Where it was measured: a figure means little without it."""

    cpu: str
    cores: int
    memory_gb: float
    python: str
    triton: str
    os: str


@dataclass(frozen=True)
class RunResult:
    """The points of one run. ``at``: UTC, ISO 8601. ``config_text``: the model's config.pbtxt while it was measured."""

    name: str
    at: str
    machine: Machine
    model: str
    version: str
    config_text: str
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()


def this_machine(triton: str) -> Machine:
    """The machine that we run on, and the Triton release measured; ``cores`` are those that this process may use."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        python=platform.python_version(),
        triton=triton,
        os=f"{platform.system()} {platform.release()}",
    )


def now() -> str:
    """The time in UTC, as results carry it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def to_document(result: RunResult) -> dict[str, Any]:
    """A result as JSON-ready values, with units in the keys."""
    return {"format": FORMAT, **dataclasses.asdict(result)}


def from_document(document: Mapping[str, Any], where: object = None) -> RunResult:
    """Read what `to_document` wrote. Raises: ConchError when it is something else."""
    if document.get("format") != FORMAT:
        raise ConchError(
            "This is no result of a run that this release can read",
            where=where,
            got=f"format {document.get('format')!r}",
            expected=f"format {FORMAT}",
            fix="measure again with `conch perf run`",
        )
    try:
        fields = {name: value for name, value in document.items() if name != "format"}
        points = tuple(_point(value) for value in fields.pop("points"))
        notes = tuple(fields.pop("notes"))
        return RunResult(machine=Machine(**fields.pop("machine")), points=points, notes=notes, **fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConchError(
            "A result of a run is incomplete", where=where, got=f"{type(error).__name__}: {error}"
        ) from error


def save(result: RunResult, folder: Path | str) -> Path:
    """Write a result into a folder, under its name and time; the path. Never writes over another result."""
    stamp = re.sub(r"[^0-9T]", "", result.at[:19])
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", result.name)
    text = json.dumps(to_document(result), indent=2, ensure_ascii=False) + "\n"
    Path(folder).mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = Path(folder) / (f"{name}-{stamp}.json" if number == 1 else f"{name}-{stamp}-{number}.json")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            return path
        except FileExistsError:
            number += 1


def load(path: Path | str) -> RunResult:
    """Read a result's file. Raises: ConchError when it is missing, no JSON, or something else."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConchError("A result cannot be read", where=path, got=error.strerror) from error
    except ValueError as error:
        raise ConchError("A result is no JSON", where=path, got=error) from error
    return from_document(document if isinstance(document, dict) else {}, path)


def _point(document: Mapping[str, Any]) -> Point:
    """A point from JSON, where the keys of ``batch_sizes`` are text."""
    fields = dict(document)
    sizes = fields.pop("batch_sizes", None)
    return Point(
        load=Load(**fields.pop("load")),
        warnings=tuple(fields.pop("warnings", ())),
        batch_sizes=None if sizes is None else {int(rows): count for rows, count in sizes.items()},
        **fields,
    )


def _cpu_name() -> str:
    """The processor's name, as Linux tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()
