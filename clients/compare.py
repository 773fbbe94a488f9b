"""How two versions' answers to the same requests differ, output by output. Pure; keeps sums, never the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from conch.tensor_spec import Array


@dataclass(frozen=True)
class OutputDifference:
    """How one output differed, over all requests compared.

    ``largest`` and ``mean`` are absolute differences of numbers; ``top1_agreement`` is the share of rows whose largest
    entry is in the same place, for floats with a last axis above 1; ``equal`` is the share of equal values, of strings
    and booleans. Each is None where it means nothing. ``not_comparable`` counts answers where the output was missing,
    or of another shape or kind.
    """

    name: str
    largest: float | None = None
    mean: float | None = None
    top1_agreement: float | None = None
    equal: float | None = None
    not_comparable: int = 0


@dataclass(frozen=True)
class Latency:
    """Latencies in ms: of the latest 10,000 requests at most; NaN for none."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, took_s: Iterable[float]) -> Latency:
        """The quantiles of durations in seconds."""
        ordered = sorted(took_s)
        if not ordered:
            return cls(math.nan, math.nan)
        at = (ordered[max(math.ceil(quantile * len(ordered)) - 1, 0)] for quantile in (0.5, 0.99))
        return cls(*(1e3 * took for took in at))


@dataclass
class _Sums:
    largest: float = 0.0
    total: float = 0.0
    numbers: int = 0
    same_top: int = 0
    rows: int = 0
    equal: int = 0
    values: int = 0
    not_comparable: int = 0


@dataclass
class Differences:
    """Adds up how answers differ. Not thread-safe: its owner takes turns."""

    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, served: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Compare one request's two answers."""
        for name in [*served, *(n for n in candidate if n not in served)]:
            sums = self._sums.setdefault(name, _Sums())
            if name not in served or name not in candidate:
                sums.not_comparable += 1
            else:
                _add(sums, served[name], candidate[name])

    def outputs(self) -> tuple[OutputDifference, ...]:
        """What has come together."""
        return tuple(_output(name, sums) for name, sums in self._sums.items())


def _add(sums: _Sums, served: Array, candidate: Array) -> None:
    words = "OSUb"
    if served.shape != candidate.shape or (served.dtype.kind in words) != (candidate.dtype.kind in words):
        sums.not_comparable += 1
        return
    if served.dtype.kind in words:
        sums.equal += int(np.sum(served == candidate))
        sums.values += served.size
        return
    a, b = served.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Equal infinities, and a NaN on both sides, are no difference; a NaN on one side is as large as it gets.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, np.abs(a - b))
    apart = np.where(np.isnan(apart), math.inf, apart)
    if apart.size:
        sums.largest = max(sums.largest, float(apart.max()))
        sums.total += float(apart.sum())
        sums.numbers += apart.size
    if served.dtype.kind == "f" and served.ndim and served.shape[-1] > 1 and served.size:
        top = a.argmax(axis=-1) == b.argmax(axis=-1)
        sums.same_top += int(np.sum(top))
        sums.rows += top.size


def _output(name: str, sums: _Sums) -> OutputDifference:
    return OutputDifference(
        name,
        largest=sums.largest if sums.numbers else None,
        mean=sums.total / sums.numbers if sums.numbers else None,
        top1_agreement=sums.same_top / sums.rows if sums.rows else None,
        equal=sums.equal / sums.values if sums.values else None,
        not_comparable=sums.not_comparable,
    )
