"""What a benchmark's figures are held to, and whether they hold. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEADER = ("holds", "what", "measured", "due")


@dataclass(frozen=True)
class Requirement:
    """A figure and its limit: at least that much, or at most."""

    what: str
    measured: float
    limit: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether it does; what was not measured does not."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        """As a table's row."""
        measured = "not measured" if math.isnan(self.measured) else f"{self.measured:.2f}"
        return "yes" if self.holds else "NO", self.what, measured, f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"holds": self.holds}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within rounds: a machine that slows down slows both. NaN when a round is missing."""
    if not ours or len(ours) != len(theirs):
        return math.nan
    return statistics.median(mine / its if its else math.nan for mine, its in zip(ours, theirs, strict=True))


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the least and the most, as a table's cell."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
