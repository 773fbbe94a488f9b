"""Triton's model statistics before and after a load, and what lies between them.

All are cumulative, in nanoseconds. An ensemble's are of another kind than a model's (tritonserver 2.51): ``success`` is
the whole request, members and what is between them; ``compute_*`` are the sums over its members; ``queue`` is the
ensemble's own, some microseconds, and holds nothing of its members' queues. So a member's time is read from the member.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perf.explain.timeline import COMPUTE

PARTS = ("queue", *COMPUTE)


@dataclass(frozen=True)
class Counters:
    """One model's counts and nanoseconds. ``rows`` were in ``executions``; ``batch_sizes``: executions by rows."""

    requests: int = 0
    request_ns: int = 0
    failures: int = 0
    rows: int = 0
    executions: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    part_ns: Mapping[str, int] = field(default_factory=dict)
    batch_sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def average_batch(self) -> float | None:
        """Rows an execution."""
        return self.rows / self.executions if self.executions else None

    @property
    def ms_a_request(self) -> float:
        """Milliseconds from a request's arrival to its answer, within the server."""
        return self.request_ns / self.requests / 1e6 if self.requests else 0.0

    def minus(self, before: Counters) -> Counters:
        """What was counted since."""
        sizes = {size: count - before.batch_sizes.get(size, 0) for size, count in self.batch_sizes.items()}
        return Counters(
            requests=self.requests - before.requests,
            request_ns=self.request_ns - before.request_ns,
            failures=self.failures - before.failures,
            rows=self.rows - before.rows,
            executions=self.executions - before.executions,
            cache_hits=self.cache_hits - before.cache_hits,
            cache_misses=self.cache_misses - before.cache_misses,
            part_ns={part: ns - before.part_ns.get(part, 0) for part, ns in self.part_ns.items()},
            batch_sizes={size: count for size, count in sizes.items() if count > 0},
        )


def parse(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Counters]:
    """The ``model_stats`` of an answer, by model and version."""
    return {(str(row["name"]), str(row.get("version", ""))): _counters(row) for row in rows}


def between(
    before: Mapping[tuple[str, str], Counters], after: Mapping[tuple[str, str], Counters]
) -> dict[str, Counters]:
    """What each model did between two looks; of several versions the one that did the most."""
    found: dict[str, Counters] = {}
    for key, counters in after.items():
        did = counters.minus(before.get(key, Counters()))
        if key[0] not in found or did.requests + did.failures > found[key[0]].requests + found[key[0]].failures:
            found[key[0]] = did
    return found


def _counters(row: Mapping[str, Any]) -> Counters:
    stats = row.get("inference_stats", {})

    def number(name: str, key: str) -> int:
        return int(stats.get(name, {}).get(key, 0))

    return Counters(
        requests=number("success", "count"),
        request_ns=number("success", "ns"),
        failures=number("fail", "count"),
        rows=int(row.get("inference_count", 0)),
        executions=int(row.get("execution_count", 0)),
        cache_hits=number("cache_hit", "count"),
        cache_misses=number("cache_miss", "count"),
        part_ns={part: number(part, "ns") for part in PARTS},
        batch_sizes={
            int(size["batch_size"]): int(size.get("compute_infer", {}).get("count", 0))
            for size in row.get("batch_stats", ())
        },
    )
