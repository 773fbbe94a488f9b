"""How two results differ at each load, and whether by more than the noise. Pure.

Noise comes from the measurements themselves: where a load was measured several times, the range of the ratios is known,
and a difference is real when the whole range lies on one side of 1. When the two were measured in turns, in at least
`ENOUGH_ROUNDS` rounds, a ratio is taken within each round, so that a machine that slows down slows both; otherwise the
range goes from the worst of one over the best of the other to the reverse. Where each was measured once, nothing is
known but that perf_analyzer called it stable: then each figure is taken to be off by up to that percentage.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from perf.points import Load, Point

# All of n rounds on one side by chance: 2 in 2^n. Below this many, rounds are compared like any repeated points.
ENOUGH_ROUNDS = 5
FASTER, SLOWER, NONE, UNCLEAR = "faster", "slower", "none", "unclear"

_REPEATED, _ROUNDS, _ONCE, _UNSTABLE = "repeated", "rounds", "measured once", "unstable"


@dataclass(frozen=True)
class Ratio:
    """B over A of one figure: the median, and the range in which it lies.

    ``verdict`` is for B: `faster`, `slower`, `none` when the range holds 1, or `unclear` when the points are unstable.
    ``basis`` says where the range comes from: `rounds`, `repeated`, or `measured once`.
    """

    figure: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    verdict: str
    basis: str

    @property
    def slower_percent(self) -> float:
        """By how much B is slower, in percent of A: what more a latency takes, or what a throughput lacks; 0 if not."""
        worse = 1 - self.ratio if self.figure in MORE_IS_BETTER else self.ratio - 1
        return max(0.0, 100.0 * worse)


@dataclass(frozen=True)
class LevelComparison:
    """Both results at one load. ``label`` names it; ``points`` are how many each has; ``failures`` failed requests."""

    label: str
    ratios: tuple[Ratio, ...]
    points: tuple[int, int]
    failures: tuple[int, int]
    unstable: tuple[int, int]


@dataclass(frozen=True)
class Measurement:
    """A point and the number of instances that it was measured with; None as configured."""

    point: Point
    instances: int | None = None


MORE_IS_BETTER = frozenset({"inferences_per_second"})
FIGURES: Mapping[str, Callable[[Point], float | None]] = {
    "inferences_per_second": lambda point: point.inferences_per_second,
    "p50_ms": lambda point: point.latency_ms.get("p50"),
    "p99_ms": lambda point: point.latency_ms.get("p99"),
}
FIGURE_NAMES = {"inferences_per_second": "inferences/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}


def compare(
    a: Iterable[Measurement], b: Iterable[Measurement], *, in_turns: bool = False
) -> tuple[list[LevelComparison], list[str], list[str]]:
    """The loads that both have, compared; then the labels of those that only A has, and only B.

    ``in_turns`` says that the points of a load were measured in rounds, A and B in each.
    """
    of_a, of_b = _by_load(a), _by_load(b)
    both = [key for key in of_a if key in of_b]
    labels = _labels([*of_a, *(key for key in of_b if key not in of_a)])
    found = []
    for key in both:
        ours, theirs = of_a[key], of_b[key]
        paired = in_turns and len(ours) == len(theirs) >= ENOUGH_ROUNDS
        ratios = [_ratio(figure, ours, theirs, paired=paired) for figure in FIGURES]
        found.append(
            LevelComparison(
                label=labels[key],
                ratios=tuple(ratio for ratio in ratios if ratio is not None),
                points=(len(ours), len(theirs)),
                failures=(sum(p.failures for p in ours), sum(p.failures for p in theirs)),
                unstable=(sum(not p.stable for p in ours), sum(not p.stable for p in theirs)),
            )
        )
    only_a = [labels[key] for key in of_a if key not in of_b]
    only_b = [labels[key] for key in of_b if key not in of_a]
    return found, only_a, only_b


_Key = tuple[int | None, Load]


def _by_load(measurements: Iterable[Measurement]) -> dict[_Key, list[Point]]:
    """Points by what they have in common: all of a load but the model's name and version, and the instances."""
    found: dict[_Key, list[Point]] = {}
    for measurement in measurements:
        load = dataclasses.replace(
            measurement.point.load, model="", version="", window_ms=1, stability_percent=1.0, max_trials=1
        )
        found.setdefault((measurement.instances, load), []).append(measurement.point)
    return found


def _ratio(figure: str, a: Sequence[Point], b: Sequence[Point], *, paired: bool) -> Ratio | None:
    read = FIGURES[figure]
    ours, theirs = [read(point) for point in a], [read(point) for point in b]
    of_a = [value for value in ours if value]
    of_b = [value for value in theirs if value]
    if not of_a or not of_b:
        return None
    middle_a, middle_b = statistics.median(of_a), statistics.median(of_b)
    middle = middle_b / middle_a
    if paired and len(of_a) == len(of_b) == len(ours):
        each = [mine / other for mine, other in zip(of_b, of_a, strict=True)]
        low, middle, high, basis = min(each), statistics.median(each), max(each), _ROUNDS
    elif len(of_a) > 1 or len(of_b) > 1:
        (low_a, high_a), (low_b, high_b) = _spread(of_a, a), _spread(of_b, b)
        low, high, basis = low_b / high_a, high_b / low_a, _REPEATED
    else:
        (low_a, high_a), (low_b, high_b) = _spread(of_a, a), _spread(of_b, b)
        low, high, basis = low_b / high_a, high_b / low_a, _ONCE
    verdict = _verdict(figure, low, high)
    single = (len(of_a) == 1 and not a[0].stable) or (len(of_b) == 1 and not b[0].stable)
    if single and verdict != NONE:
        verdict, basis = UNCLEAR, _UNSTABLE
    return Ratio(figure, middle_a, middle_b, middle, low, high, verdict, basis)


def _spread(values: Sequence[float], points: Sequence[Point]) -> tuple[float, float]:
    """The range of repeated figures; of a single one, as far as its stability goes."""
    if len(values) > 1:
        return min(values), max(values)
    share = points[0].load.stability_percent / 100.0
    return values[0] * (1 - share), values[0] * (1 + share)


def _verdict(figure: str, low: float, high: float) -> str:
    if low <= 1.0 <= high:
        return NONE
    return FASTER if (low > 1.0) == (figure in MORE_IS_BETTER) else SLOWER


def _labels(keys: Sequence[_Key]) -> dict[_Key, str]:
    """A name for each load, of what sets it apart from the others; the level is always in it."""
    traits = {key: _traits(key) for key in keys}
    varying = [len(set(values)) > 1 for values in zip(*traits.values(), strict=True)]
    return {
        key: ", ".join((*(t for t, varies in zip(words, varying, strict=True) if varies and t), key[1].label))
        for key, words in traits.items()
    }


def _traits(key: _Key) -> tuple[str, ...]:
    instances, load = key
    return (
        "as configured" if instances is None else f"instances {instances}",
        f"batch {load.batch_size}",
        load.protocol + (" streaming" if load.streaming else ""),
        f"{load.shared_memory} shared memory" if load.shared_memory != "none" else "",
    )


def too_slow(levels: Iterable[LevelComparison], percent: float) -> list[str]:
    """Where B is slower by more than the noise and by more than so many percent, or fails requests that A did not."""
    found = []
    for level in levels:
        for ratio in level.ratios:
            if ratio.verdict == SLOWER and ratio.slower_percent > percent:
                found.append(f"{level.label}: {FIGURE_NAMES[ratio.figure]} {ratio.slower_percent:.1f} % slower")
        if level.failures[1] > level.failures[0]:
            found.append(f"{level.label}: {level.failures[1]} requests failed, {level.failures[0]} before")
    return found
