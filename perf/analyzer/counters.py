"""What the server counted while a load ran, from its statistics before and after: the sizes of batches, and failures.

They hold what came before the measurement windows too; times are perf_analyzer's, which are of the windows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perf.analyzer.served import configs

if TYPE_CHECKING:
    from clients.replies import Duration, ModelStatistics

TIMES = ("queue", "compute_input", "compute_infer", "compute_output")
Key = tuple[str, str]


@dataclass(frozen=True)
class Counters:
    """Statistics by (model, version), for a model and, where it is an ensemble, all that it is made of."""

    model: str
    version: str
    rows: Mapping[Key, ModelStatistics]


@dataclass(frozen=True)
class Served:
    """What happened in between. ``server_ms``: means a request of the public model, sums over the steps."""

    server_ms: Mapping[str, float] = field(default_factory=dict)
    average_batch: float | None = None
    batch_sizes: Mapping[int, int] | None = None
    failures: int = 0


def read(url: str, model: str, version: str = "") -> Counters:
    """Ask the server. Raises: ConchError."""
    from clients.client import Client

    members = configs(url, model)
    with Client(url, retries=1) as client:
        rows = {(row.name, row.version): row for row in client.statistics() if row.name in members}
    return Counters(model, version, rows)


def between(before: Counters, after: Counters) -> Served:
    """The difference; a model that was loaded in between counts from its beginning."""
    changed = {key: _less(row, before.rows.get(key)) for key, row in after.rows.items()}
    public = [row for (name, version), row in changed.items() if name == after.model and after.version in ("", version)]
    requests = sum(row["success"][0] for row in public)
    failures = sum(row["fail"][0] for row in public)
    steps = [row for row in changed.values() if row["executions"]]
    if not requests or not steps:
        return Served(failures=failures)
    times = {name: sum(row[name][1] for row in steps) / requests / 1e6 for name in TIMES}
    # Of an ensemble, the step that computes longest: its batches are the ones that matter.
    longest = max(steps, key=lambda row: row["compute_infer"][1])
    sizes = {size: count for size, count in sorted(longest["batches"].items()) if count}
    return Served(times, longest["inferences"] / longest["executions"], sizes or None, failures)


def _less(after: ModelStatistics, before: ModelStatistics | None) -> dict[str, Any]:
    """One row's growth. Counters that fell were reset by a reload: then the later ones are the growth."""
    if before is not None and before.executions > after.executions:
        before = None
    found: dict[str, Any] = {
        "inferences": after.inferences - (before.inferences if before else 0),
        "executions": after.executions - (before.executions if before else 0),
        "batches": {
            size: count - (before.batches.get(size, 0) if before else 0) for size, count in after.batches.items()
        },
    }
    for name in ("success", "fail", *TIMES):
        now: Duration = getattr(after, name)
        then: Duration | None = getattr(before, name) if before else None
        found[name] = (now.count - (then.count if then else 0), now.total_ns - (then.total_ns if then else 0))
    return found
