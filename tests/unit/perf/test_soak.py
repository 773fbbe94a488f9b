"""Slopes, throughput from step to step, and what counts as a leak: arithmetic on made-up samples."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from perf.load_loop import LoadResult
from perf.overload import climb, steps
from perf.server_usage import Usage, descendants, growth, usage
from perf.soak import trend

FLAT = Usage(0.0, server_mib=50, models_mib=100, processes=2, descriptors=60, regions=2, regions_mib=2, cpu_s=0)
NOISE = random.Random(3)


def samples(change: Callable[[Usage, int], Usage], count: int = 120) -> list[Usage]:
    noisy = [replace(FLAT, server_mib=50 + NOISE.gauss(0, 0.3)) for _ in range(count)]
    return [change(sample, index) for index, sample in enumerate(noisy)]


def faults(change: Callable[[Usage, int], Usage]) -> list[str]:
    found = samples(change)
    return trend(found, [float(i) for i in range(len(found))], "update").faults(0.05)


def test_a_slope_comes_with_its_error() -> None:
    xs = [float(i) for i in range(200)]
    found = growth(xs, [3 + 0.5 * x + NOISE.gauss(0, 1) for x in xs])
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert 0 < found.error < 0.02
    assert math.isnan(growth([1.0, 2.0], [1.0, 2.0]).slope)


def test_noise_is_no_leak() -> None:
    assert faults(lambda usage, index: usage) == []


def test_what_grows_while_everything_settles_is_no_leak() -> None:
    assert faults(lambda usage, index: replace(usage, server_mib=usage.server_mib + min(index, 20))) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda u, i: replace(u, server_mib=u.server_mib + 0.3 * i), "tritonserver grows"),
        (lambda u, i: replace(u, models_mib=u.models_mib + 0.3 * i), "the models' processes"),
        (lambda u, i: replace(u, regions_mib=u.regions_mib + i), "shared memory"),
        (lambda u, i: replace(u, processes=u.processes + i // 50), "processes of models"),
        (lambda u, i: replace(u, regions=u.regions + i // 50), "regions"),
        (lambda u, i: replace(u, descriptors=u.descriptors + i), "open files"),
    ],
)
def test_what_stays_behind_is_named(change: Callable[[Usage, int], Usage], told: str) -> None:
    (fault,) = faults(change)
    assert told in fault


def run(rate: float, failures: int = 0) -> LoadResult:
    return LoadResult(1, 100, failures, rate, 1.0, 2.0)


@pytest.mark.parametrize(("rate", "collapses"), [(91.0, False), (89.0, True), (150.0, False)])
def test_a_step_that_loses_more_than_a_tenth_collapses(rate: float, collapses: bool) -> None:
    first, second = steps({1: [run(100)], 2: [run(rate)]})
    assert (first.collapses, second.collapses) == (False, collapses)


def test_one_slow_round_is_no_collapse_and_failures_add_up() -> None:
    _, second = steps({1: [run(100)] * 3, 2: [run(100), run(10), run(100, failures=2)]})
    assert (second.collapses, second.failures, second.of_best) == (False, 2, 1.0)


@pytest.mark.parametrize(("limit", "fails"), [(None, True), (2, True), (1, False)])
def test_requests_beyond_the_queues_limit_may_be_refused(limit: int | None, fails: bool) -> None:
    _, second = steps({1: [run(100)], 2: [run(100, failures=2)]})
    assert second.fails(limit) == fails


def test_levels_are_measured_up_and_down_in_turn() -> None:
    asked: list[int] = []

    def measure(level: int) -> LoadResult:
        asked.append(level)
        return run(100)

    used_s = iter(range(100))
    found = climb(measure, [1, 2, 4], rounds=3, cpu_s=lambda: float(next(used_s)))
    assert asked == [1, 2, 4, 4, 2, 1, 1, 2, 4]
    assert [step.server_cpu_ms for step in found] == [10.0] * 3  # a second on 100 requests


def test_what_a_process_holds_is_read() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in descendants(os.getpid())
        found = usage(os.getpid(), [], 1.0)
        assert found.server_mib > 1
        assert found.descriptors > 2
        assert found.processes >= 1
    finally:
        child.kill()
        child.wait()
    assert child.pid not in descendants(os.getpid())
