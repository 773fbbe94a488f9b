"""How long to try, and how often: deadlines, and waits between tries. Pure but for the clock, which is handed in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from conch.errors import InvalidInput


@dataclass(frozen=True)
class RetryPolicy:
    """At most ``retries`` tries more, after random waits whose upper bound doubles ("full jitter").

    Only what is safe is tried again: a request that found nobody, whose connection broke before an answer, or that was
    told UNAVAILABLE (503). Never a 4xx, never a model's failure, never in the middle of a stream.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    retries: int = 5
    base_s: float = 0.2
    cap_s: float = 2.0

    def wait_s(self, tries: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """The wait after the ``tries``-th failed try, counted from 1."""
        return uniform(0.0, min(self.cap_s, self.base_s * 2 ** (tries - 1)))


@dataclass(frozen=True)
class Deadline:
    """A point in time by which the answer is due, waits and retries included."""

    timeout_s: float
    ends_at: float
    clock: Callable[[], float]

    @classmethod
    def after(cls, timeout_s: float, clock: Callable[[], float]) -> Deadline:
        """The deadline this many seconds from now. Raises: InvalidInput unless it is a positive, finite number."""
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise InvalidInput("timeout_s is no time to wait", got=timeout_s, expected="seconds, above 0")
        return cls(timeout_s, clock() + timeout_s, clock)

    @property
    def left_s(self) -> float:
        """The seconds that are left; 0 or less when it has passed."""
        return self.ends_at - self.clock()
