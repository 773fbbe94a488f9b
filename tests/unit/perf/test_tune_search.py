"""The search, on a server that is a formula: it must find what pays, soon, and believe no noise."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from perf.tune.knobs import Knob, knobs, rules
from perf.tune.search import (
    Change,
    Duel,
    Found,
    Goal,
    Reading,
    Search,
    Trial,
    changes_between,
    prune,
)
from perf.tune.settings import Batching, ModelTuning, Tuning
from perf.tune.tunable import Tunable

CORES = 4
SECONDS = (4.0, 10.0, 20.0)
BAD = ModelTuning(instances=1, threads=0, max_batch_size=32, batching=Batching(5000))
MODEL = Tunable("m", BAD, "intra_op_thread_count", "", smallest_batch=32, batches=True, has_graph=True)
START = Tuning((("m", BAD),))


def speed(tuned: ModelTuning, concurrency: int = 32) -> Reading:
    """Requests/s and ms of a made-up server of 4 cores: threads scale badly, waiting and oversubscription cost."""
    threads = tuned.threads or CORES
    busy = tuned.instances * threads
    capacity = tuned.instances * 100 * threads**0.6 * min(1.0, (CORES / busy) ** 1.1)
    delay_s = 0.0
    if tuned.batching is not None:
        capacity *= 0.8 if not tuned.batching.preferred else 1.05
        delay_s = tuned.batching.delay_microseconds / 1e6
    rate = min(capacity, concurrency / (concurrency / capacity + delay_s))
    p50_ms = concurrency / rate * 1000
    return Reading(rate, p50_ms, p50_ms * (2.0 if tuned.batching and tuned.batching.preferred else 1.5))


@dataclass
class FakeArena:
    """Measures by the formula, with noise of each reading and a drift of the machine; time passes on its own clock."""

    noise: float = 0.0
    drift: float = 0.3
    concurrency: int = 32
    reads: Callable[[ModelTuning, int], Reading] = speed
    refuses: Callable[[ModelTuning], bool] = lambda _: False
    now_s: float = 0.0
    asked: list[tuple[Tuning, Tuning, int]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(3))

    def duel(self, best: Tuning, other: Tuning, rung: int) -> Duel | str:
        self.asked.append((best, other, rung))
        self.now_s += SECONDS[rung]
        if self.refuses(other.of("m")):
            return "it does not load"
        return Duel(self._read(best, rung), self._read(other, rung))

    def _read(self, tuning: Tuning, rung: int) -> Reading:
        drift = 1.0 - self.drift * min(1.0, self.now_s / 300)
        factor = drift * self.chance.gauss(1.0, self.noise / (1 + rung))
        found = self.reads(tuning.of("m"), self.concurrency)
        return Reading(found.requests_per_second * factor, found.p50_ms / factor, found.p99_ms / factor)

    def ease(self) -> bool:
        self.concurrency //= 2
        return self.concurrency > 0


def search(arena: FakeArena, goal: Goal = Goal(), deadline_s: float = 1e9, start: Tuning = START) -> Found:  # noqa: B008
    def moves(tuning: Tuning) -> list[Knob]:
        return knobs(tuning, [MODEL], CORES, {})

    return Search(arena, goal, moves, deadline_s, lambda: arena.now_s).run(start, rules(start, [MODEL], CORES))


GRID = [
    dataclasses.replace(BAD, instances=i, threads=t, batching=b)
    for i, t, b in itertools.product(
        range(1, 2 * CORES + 1),
        range(1, CORES + 1),
        [None, *(Batching(d) for d in (0, 500, 2000, 5000)), Batching(0, (4,)), Batching(0, (8,))],
    )
]


def rate(tuned: ModelTuning) -> float:
    return speed(tuned).requests_per_second


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_bad_settings_become_nearly_the_best_in_a_fifth_of_the_grid(noise: float) -> None:
    arena = FakeArena(noise)
    found = search(arena)
    assert rate(found.best.of("m")) >= 0.95 * max(map(rate, GRID))
    assert arena.now_s <= 0.2 * len(GRID) * SECONDS[1]


def test_it_ends_by_itself() -> None:
    assert search(FakeArena()).finished


def test_nothing_is_measured_twice() -> None:
    arena = FakeArena(0.05)
    search(arena)
    tried = [(other, rung) for _, other, rung in arena.asked]
    assert len(tried) == len(set(tried))


def test_it_ends_when_the_time_is_up() -> None:
    arena = FakeArena()
    found = search(arena, deadline_s=60.0)
    assert arena.now_s <= 60.0
    assert not found.finished
    assert rate(found.best.of("m")) > rate(BAD)  # the rules come first


def test_what_is_plain_is_not_lost_for_want_of_time() -> None:
    found = search(FakeArena(), deadline_s=2 * SECONDS[0])
    assert rate(found.best.of("m")) > 1.3 * rate(BAD)


def test_good_settings_stay_as_they_are() -> None:
    best = max(GRID, key=rate)
    found = search(FakeArena(0.01), start=Tuning((("m", best),)))
    assert rate(found.best.of("m")) >= 0.99 * rate(best)


def test_what_does_not_load_is_never_chosen() -> None:
    arena = FakeArena(refuses=lambda tuned: tuned.instances > 2)
    found = search(arena)
    assert found.best.of("m").instances <= 2
    assert any(trial.refused for trial in found.trials)


def test_the_limit_of_the_p99_goes_before_throughput() -> None:
    limit_ms = 130.0
    found = search(FakeArena(drift=0), Goal("throughput", limit_ms))
    without = search(FakeArena(drift=0)).best.of("m")
    assert speed(without).p99_ms > limit_ms  # else the test says nothing
    assert speed(found.best.of("m")).p99_ms <= limit_ms


def test_the_fastest_answer_can_be_sought_instead() -> None:
    found = search(FakeArena(), Goal("latency"))
    assert speed(found.best.of("m")).p99_ms <= 1.05 * min(speed(t).p99_ms for t in GRID)


def test_fewer_are_in_flight_when_no_settings_keep_the_limit() -> None:
    arena = FakeArena(drift=0)
    found = search(arena, Goal("throughput", 15.0))
    assert 0 < arena.concurrency < 32
    assert speed(found.best.of("m"), arena.concurrency).p99_ms <= 15.0


def test_failures_are_worse_than_being_slow() -> None:
    goal = Goal()
    assert goal.gain(Reading(900, 1, 1, failures=1), Reading(100, 9, 9)) == 0.0


def test_only_what_pays_is_changed_and_each_change_has_its_worth() -> None:
    good = dataclasses.replace(BAD, instances=4, threads=1, batching=None)
    idle = dataclasses.replace(good, max_batch_size=64)
    best = Tuning((("m", idle),))
    changes = changes_between(START, best)
    assert [c.what for c in changes] == ["instances", "batching", "max_batch_size"]
    pruned, kept = prune(START, best, changes, FakeArena(), Goal(), lambda _: True)
    assert pruned == Tuning((("m", good),))
    assert [c.what for c in kept] == ["instances", "batching"]
    due = rate(good) / rate(dataclasses.replace(good, instances=1, threads=0))
    assert kept[0].gain == pytest.approx(due, rel=0.01)


def test_without_time_changes_stay_and_say_nothing_of_their_worth() -> None:
    best = Tuning((("m", dataclasses.replace(BAD, instances=4, threads=1)),))
    pruned, kept = prune(START, best, changes_between(START, best), FakeArena(), Goal(), lambda _: False)
    assert pruned == best
    assert kept == (Change("m", "instances", START, best),)


def test_every_trial_is_told() -> None:
    arena = FakeArena()
    told: list[Trial] = []
    hunt = Search(arena, Goal(), lambda t: knobs(t, [MODEL], CORES, {}), 1e9, lambda: arena.now_s, told.append)
    assert hunt.run(START, rules(START, [MODEL], CORES)).trials == tuple(told) != ()
