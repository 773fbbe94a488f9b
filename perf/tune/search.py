"""An informed search for the best settings: which to try, in what order, how long. Knows no server.

It begins with rules, then turns one knob after the other, those first that should pay most. Each position is measured
in turns with the best so far, so that a machine that slows down slows both; short at first, longer for what survives.
What was measured is never measured again. It goes round until a round brings nothing, or the time is up.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perf.tune.knobs import Knob
from perf.tune.settings import Tuning

SHORT, LONGER, FINAL = 0, 1, 2

# What a longer look must show before other settings are taken for better, and what a short one for a longer look.
MARGIN = 0.03
WORTH_A_LOOK = -0.01
PLAIN = 0.3
# The p99 of a short look is one of few requests: it may be this much above the limit.
ALLOWANCE = {SHORT: 1.3, LONGER: 1.05, FINAL: 1.0}


@dataclass(frozen=True)
class Reading:
    """What one set of settings did under the load."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int = 0


@dataclass(frozen=True)
class Goal:
    """What is sought: ``objective`` throughput or latency (the p99); the p99 may be ``p99_ms`` at most, if given."""

    objective: str = "throughput"
    p99_ms: float | None = None

    def allows(self, reading: Reading, rung: int = FINAL) -> bool:
        """Whether a reading keeps the limit, and nothing failed."""
        return not reading.failures and (self.p99_ms is None or reading.p99_ms <= self.p99_ms * ALLOWANCE[rung])

    def gain(self, other: Reading, best: Reading, rung: int = FINAL) -> float:
        """How many times better ``other`` is; infinite or 0 where only one of both keeps the limit."""
        if self.allows(other, rung) != self.allows(best, rung):
            return math.inf if self.allows(other, rung) else 0.0
        if self.objective == "latency" or not self.allows(best, rung):
            return best.p99_ms / other.p99_ms if other.p99_ms > 0 else math.inf
        return other.requests_per_second / best.requests_per_second if best.requests_per_second > 0 else math.inf


@dataclass(frozen=True)
class Duel:
    """Two sets of settings, measured in turns."""

    best: Reading
    other: Reading


class Arena(Protocol):
    """Where settings meet."""

    def duel(self, best: Tuning, other: Tuning, rung: int) -> Duel | str:
        """Measure both in turns, longer on a higher rung; why not, when the other settings cannot be served."""

    def ease(self) -> bool:
        """Ask for less at once, when no settings keep the limit; False when it cannot be less."""


@dataclass(frozen=True)
class Trial:
    """One comparison: what was turned, what came of it; ``kept`` when it is the best since. ``refused``: why not tried.

    ``gain`` is how many times better than the best so far.
    """

    knob: str
    tuning: Tuning
    rung: int
    gain: float
    kept: bool
    seconds: float
    duel: Duel | None = None
    refused: str = ""


@dataclass(frozen=True)
class Found:
    """The best settings, all that was tried on the way, and whether the search ended by itself."""

    best: Tuning
    trials: tuple[Trial, ...]
    finished: bool


@dataclass
class Search:
    """One search. ``knobs_of`` gives the moves from a set of settings; ``deadline_s`` is on ``clock``."""

    arena: Arena
    goal: Goal
    knobs_of: Callable[[Tuning], Sequence[Knob]]
    deadline_s: float
    clock: Callable[[], float] = time.monotonic
    told: Callable[[Trial], None] = lambda _: None
    trials: list[Trial] = field(default_factory=list)

    def run(self, start: Tuning, rules: Knob) -> Found:
        """Search from ``start``; what the arena raises ends it."""
        self._seen = {start}
        best = self._turn(start, rules)
        while self._limit_is_broken() and self.arena.ease():
            self._seen = {start}
            self.trials.clear()
            best = self._turn(start, rules)
        return self._rounds(best)

    def _rounds(self, best: Tuning) -> Found:
        """Turn every knob, again and again while that helps; what helped may open others, so the order is made anew."""
        improved = True
        while improved:
            improved = False
            turned: set[str] = set()
            while knob := next((k for k in self._open(best) if k.label not in turned), None):
                if not self._has_time(SHORT):
                    return Found(best, tuple(self.trials), finished=False)
                turned.add(knob.label)
                after = self._turn(best, knob)
                improved, best = improved or after != best, after
        return Found(best, tuple(self.trials), finished=True)

    def _open(self, best: Tuning) -> list[Knob]:
        """The knobs with positions that were not tried."""
        return [knob for knob in self.knobs_of(best) if any(o not in self._seen for o in knob.options)]

    def _turn(self, best: Tuning, knob: Knob) -> Tuning:
        """Try a knob's positions, short; those that stand out again, longer, each against the best by then."""
        hopeful: list[tuple[float, Tuning]] = []
        for option in knob.options:
            if option in self._seen or not self._has_time(SHORT):
                continue
            self._seen.add(option)
            gain = self._try(knob, best, option, SHORT)
            if gain > 1 + WORTH_A_LOOK:
                hopeful.append((gain, option))
        hopeful.sort(key=lambda pair: -pair[0])
        for gain, option in hopeful[: max(1, math.ceil(len(knob.options) / 3))]:
            if not self._has_time(LONGER):
                # What is plain in a short look need not be lost: before it is written all is measured again.
                return option if gain > 1 + PLAIN else best
            if self._try(knob, best, option, LONGER) > 1 + MARGIN:
                best = option
        return best

    def _try(self, knob: Knob, best: Tuning, option: Tuning, rung: int) -> float:
        begun = self.clock()
        result = self.arena.duel(best, option, rung)
        if isinstance(result, str):
            trial = Trial(knob.label, option, rung, 0.0, False, self.clock() - begun, None, result)
        else:
            gain = self.goal.gain(result.other, result.best, rung)
            kept = rung != SHORT and gain > 1 + MARGIN
            trial = Trial(knob.label, option, rung, gain, kept, self.clock() - begun, result)
        self.trials.append(trial)
        self.told(trial)
        return trial.gain

    def _has_time(self, rung: int) -> bool:
        """Whether another comparison of this length would end in time, by the longest of the last few."""
        took = [trial.seconds for trial in self.trials[-12:] if trial.rung == rung]
        if rung == LONGER and not took:
            took = [2 * trial.seconds for trial in self.trials]
        return self.clock() + max(took, default=0.0) <= self.deadline_s

    def _limit_is_broken(self) -> bool:
        """Whether nothing that was measured kept the limit."""
        duels = [(t.duel, t.rung) for t in self.trials if t.duel is not None]
        readings = [(reading, rung) for duel, rung in duels for reading in (duel.best, duel.other)]
        return bool(readings) and not any(self.goal.allows(reading, rung) for reading, rung in readings)


@dataclass(frozen=True)
class Change:
    """One thing that the best settings have otherwise than those at the start.

    ``gain`` is how many times better it makes them, measured by taking it back alone; None where time was short.
    """

    model: str
    what: str
    before: Tuning
    after: Tuning
    gain: float | None = None


def prune(
    start: Tuning, best: Tuning, changes: Sequence[Change], arena: Arena, goal: Goal, has_time: Callable[[float], bool]
) -> tuple[Tuning, tuple[Change, ...]]:
    """Take back each change alone, and measure what it was worth; what was worth nothing stays as it was.

    ``has_time`` is asked whether so many more seconds may pass.
    """
    kept: list[Change] = []
    took_s = 0.0
    for change in changes:
        without = taken_back(start, best, change)
        gains: list[float] = []
        for rung in (LONGER, FINAL):
            if gains and abs(gains[0] - 1) > MARGIN:
                break  # plain enough: a longer look is for what is near
            if without == best or not has_time(took_s):
                break
            begun = time.monotonic()
            result = arena.duel(best, without, rung)
            took_s = max(took_s, time.monotonic() - begun)
            if isinstance(result, str):
                break
            gains.append(goal.gain(result.best, result.other, rung))
        if gains and gains[-1] <= 1 + MARGIN / 3:
            best = without
        else:
            kept.append(dataclasses.replace(change, gain=gains[-1] if gains else None))
    return best, tuple(kept)


_TOGETHER = {
    "instances": ("instances", "threads"),
    "batching": ("batching",),
    "max_batch_size": ("max_batch_size",),
    "padding": ("pad_multiple",),
}


def changes_between(start: Tuning, best: Tuning) -> tuple[Change, ...]:
    """What differs, one by one; instances and their threads are one thing."""
    found = []
    if start.version != best.version:
        found.append(Change("", "version", start, best))
    for model, tuned in best.models:
        before = start.of(model)
        for what, fields in _TOGETHER.items():
            if any(getattr(before, f) != getattr(tuned, f) for f in fields):
                found.append(Change(model, what, start, best))
    return tuple(found)


def taken_back(start: Tuning, best: Tuning, change: Change) -> Tuning:
    """The best settings without one change."""
    if change.what == "version":
        return dataclasses.replace(best, version=start.version)
    before = start.of(change.model)
    fields = {name: getattr(before, name) for name in _TOGETHER[change.what]}
    return best.having(change.model, dataclasses.replace(best.of(change.model), **fields))
