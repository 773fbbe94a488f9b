"""What perf_analyzer 2.51 says, read: its CSV and the lines of its log. Pure."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from conch.errors import ConchError

_PASS = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\..*? latency: (\d+) usec")
_COUNT = re.compile(r"^\s*Request count: (\d+)", re.MULTILINE)
_WARNING = re.compile(r"\[?WARNING\]?:?\s*(.+)")
NO_REQUESTS = "No valid requests recorded within time interval"
# Read from a GPU's metrics, which a CPU machine has none of.
_IGNORED = ("nv_gpu_",)
# What the server did within the windows: one such block for the model, and for each that an ensemble is made of.
_SERVED = re.compile(
    r"Inference count: (?P<inferences>\d+)\s+Execution count: (?P<executions>\d+)\s+.*?"
    r"Successful request count: (?P<requests>\d+)\s+Avg request latency: \d+ usec \([^)]*?"
    r"queue (?P<queue>\d+) usec \+ compute input (?P<compute_input>\d+) usec \+ "
    r"compute infer (?P<compute_infer>\d+) usec \+ compute output (?P<compute_output>\d+) usec\)",
    re.DOTALL,
)
_SERVED_HEAD = re.compile(r"^\s*Inference count: ", re.MULTILINE)
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
_PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Window:
    """One measurement window."""

    inferences_per_second: float
    latency_ms: float


@dataclass(frozen=True)
class Figures:
    """What one call of perf_analyzer measured; ``latency_ms`` has avg and the percentiles.

    ``server_ms`` are means a request, for an ensemble sums over its steps; ``average_batch`` is rows an execution, of
    the step that computes longest. Both are of the windows alone; empty and None where the log does not tell.
    """

    inferences_per_second: float
    latency_ms: dict[str, float]
    requests: int
    windows: tuple[Window, ...]
    warnings: tuple[str, ...]
    server_ms: dict[str, float] = field(default_factory=dict)
    average_batch: float | None = None

    @property
    def spread_percent(self) -> float:
        """How far the windows lie apart, in throughput or latency: largest over smallest, less one.

        Infinite where there are no two to compare: nothing shows that such a figure is steady.
        """
        measured = ([w.inferences_per_second for w in self.windows], [w.latency_ms for w in self.windows])
        return max(_spread_percent(values) for values in measured)


def read_window(line: str) -> Window | None:
    """The window that a line of the log tells of, if it does."""
    found = _PASS.search(line)
    return Window(float(found.group(1)), int(found.group(2)) / 1e3) if found else None


def figures(csv_text: str, log: str) -> Figures:
    """One load's figures. Raises: ConchError when the CSV is not what is known of this release."""
    rows = list(csv.DictReader(io.StringIO(csv_text)))
    try:
        (row,) = rows
        latency = {name: float(row[f"{name} latency"]) / 1e3 for name in _PERCENTILES}
        # Not among the columns of a run that is judged by a percentile, but its two parts are.
        latency = {"avg": (float(row["request/response"]) + float(row["response wait"])) / 1e3, **latency}
        throughput = float(row["Inferences/Second"])
    except (KeyError, ValueError, TypeError) as error:
        raise ConchError(
            "perf_analyzer's report cannot be read",
            got=f"{type(error).__name__} {error} in {csv_text[:300]!r}",
            expected="the columns of release 2.51",
            fix="`conch perf install` gets that release",
        ) from error
    found = _COUNT.search(log)
    windows = tuple(window for line in log.splitlines() if (window := read_window(line)) is not None)
    requests = int(found.group(1)) if found else 0
    return Figures(throughput, latency, requests, windows, warnings(log), *_served(log, requests))


def _served(log: str, requests: int) -> tuple[dict[str, float], float | None]:
    """What the server did for a request, and its average batch.

    Not from the CSV: the queue time that release 2.51 writes there for an ensemble is wrong (2 us, where its steps
    waited 10 ms). An ensemble's own block has no compute parts, and is passed over for those of its steps.
    """
    starts = [match.start() for match in _SERVED_HEAD.finditer(log)]
    blocks = [log[start:end] for start, end in itertools.pairwise([*starts, len(log)])]
    steps = [match for block in blocks if (match := _SERVED.search(block)) is not None]
    steps = [step for step in steps if int(step["executions"])]
    if not steps or not requests:
        return {}, None
    totals = {part: sum(int(step[part]) * int(step["requests"]) for step in steps) for part in _PARTS}
    longest = max(steps, key=lambda step: int(step["compute_infer"]) * int(step["requests"]))
    server_ms = {part: total / requests / 1e3 for part, total in totals.items()}
    return server_ms, int(longest["inferences"]) / int(longest["executions"])


def warnings(log: str) -> tuple[str, ...]:
    """What perf_analyzer warns of, once each."""
    found = (match.group(1).strip() for match in _WARNING.finditer(log))
    return tuple(dict.fromkeys(text for text in found if not any(word in text for word in _IGNORED)))


def reason(log: str) -> str:
    """Why it failed: the last lines of its log that say so, without the settings that it repeats."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"(error:|Thread \[\d+\] had error:)", line)]
    cleaned = [re.sub(r"^(error:|Thread \[\d+\] had error:)\s*", "", line) for line in told]
    if not cleaned and NO_REQUESTS in log:
        return "no request was done within a measurement window"
    return "; ".join(dict.fromkeys(cleaned)) if cleaned else "\n".join(lines[-5:]) or "nothing was said"


def _spread_percent(values: Sequence[float]) -> float:
    if len(values) < 2 or min(values) <= 0:
        return float("inf")
    return (max(values) / min(values) - 1) * 100
