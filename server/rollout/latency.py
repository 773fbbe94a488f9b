"""How long a version takes to answer, beside the one that serves, in one server and in turns.

In turns, because a machine is never equally busy twice: whatever slows one slows the other. One request at a time, so
the figure is the model's own and no queue's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from conch.errors import RepositoryError

WARM_UP = 5
# With 500 answers five lie above the p99, so that it is no single outlier.
REQUESTS = 500
# Of a slow model fewer are asked; with less than 100 the p99 is the slowest.
LONGEST_S = 15.0
FEWEST = 20
# So many answers over the budget, and the p99 of REQUESTS is over it whatever the others are.
TOO_MANY = REQUESTS // 100


@dataclass(frozen=True)
class Latencies:
    """Milliseconds a request."""

    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Measured:
    """The candidate's latencies, and those of the version that serves where there is one."""

    candidate: Latencies
    before: Latencies | None
    budget_ms: float


def measure(candidate: Callable[[int], object], before: Callable[[int], object] | None, budget_ms: float) -> Measured:
    """Ask both in turns; each function asks the i-th request. Raises: what they raise."""
    asked = [candidate] if before is None else [candidate, before]
    for index in range(WARM_UP):
        for ask in asked:
            ask(index)
    taken: list[list[float]] = [[] for _ in asked]
    end = time.monotonic() + LONGEST_S
    for index in range(REQUESTS):
        enough = time.monotonic() > end or sum(t > budget_ms for t in taken[0]) >= TOO_MANY
        if index >= FEWEST and enough:
            break
        for place in range(len(asked)):
            which = (place + index) % len(asked)  # the first of a turn changes
            start = time.perf_counter()
            asked[which](index)
            taken[which].append((time.perf_counter() - start) * 1e3)
    figures = [summarize(times) for times in taken]
    return Measured(figures[0], figures[1] if before is not None else None, budget_ms)


def summarize(times_ms: Sequence[float]) -> Latencies:
    """Percentiles of what was measured; the p99 is a time that was really taken."""
    p50, p99 = np.percentile(np.asarray(times_ms), [50, 99], method="higher")
    return Latencies(len(times_ms), round(float(p50), 3), round(float(p99), 3))


def check(measured: Measured, name: str) -> None:
    """Raise RepositoryError when the candidate's p99 is over the budget."""
    if measured.candidate.p99_ms <= measured.budget_ms:
        return
    now = measured.before
    serving = f"; the version that serves: {now.p99_ms:g} ms" if now is not None else ""
    raise RepositoryError(
        f"{name} is slower than its budget",
        got=f"p99 {measured.candidate.p99_ms:g} ms over {measured.candidate.requests} requests{serving}",
        expected=f"p99 of {measured.budget_ms:g} ms or less",
        fix="make it faster, or allow more with --p99-ms",
    )
