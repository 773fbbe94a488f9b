from __future__ import annotations

from collections.abc import Mapping

import pytest

from clients.replies import Duration, ModelStatistics
from perf.analyzer.counters import Counters, Served, between


def row(
    name: str, requests: int, executions: int, compute_ms: int, batches: Mapping[int, int], failed: int = 0
) -> ModelStatistics:
    """Statistics in which each request took ``compute_ms`` to compute, and waited 1 ms."""
    none = Duration(0, 0)
    return ModelStatistics(
        name=name,
        version="1",
        inferences=requests,
        executions=executions,
        last_inference_ms=0,
        success=Duration(requests, requests * (compute_ms + 1) * 10**6),
        fail=Duration(failed, 0),
        queue=Duration(requests, requests * 10**6),
        compute_input=none,
        compute_infer=Duration(requests, requests * compute_ms * 10**6),
        compute_output=none,
        cache_hit=none,
        cache_miss=none,
        batches=batches,
    )


def counters(*rows: ModelStatistics, version: str = "") -> Counters:
    return Counters("whole", version, {(r.name, r.version): r for r in rows})


def test_only_what_happened_in_between_counts() -> None:
    before = counters(row("whole", 1000, 1000, 9, {1: 1000}))
    after = counters(row("whole", 1100, 1050, 9, {1: 1000, 2: 50}, failed=3))
    assert between(before, after) == Served(
        server_ms={"queue": 1.0, "compute_input": 0.0, "compute_infer": 9.0, "compute_output": 0.0},
        average_batch=2.0,
        batch_sizes={2: 50},
        failures=3,
    )


def test_an_ensemble_is_the_sum_of_its_steps_and_batches_as_the_longest() -> None:
    nothing = counters(row("whole", 0, 0, 0, {}), row("fast", 0, 0, 0, {}), row("slow", 0, 0, 0, {}))
    after = counters(row("whole", 100, 0, 0, {}), row("fast", 100, 10, 2, {10: 10}), row("slow", 100, 50, 7, {2: 50}))
    found = between(nothing, after)
    assert found.server_ms["compute_infer"] == pytest.approx(9)
    assert found.server_ms["queue"] == pytest.approx(2)
    assert found.average_batch == 2
    assert found.batch_sizes == {2: 50}


def test_counters_that_a_reload_set_back_begin_anew() -> None:
    found = between(counters(row("whole", 1000, 1000, 9, {1: 1000})), counters(row("whole", 10, 10, 3, {1: 10})))
    assert found.server_ms["compute_infer"] == pytest.approx(3)
    assert found.batch_sizes == {1: 10}


def test_a_server_that_was_not_asked_tells_nothing() -> None:
    same = counters(row("whole", 5, 5, 1, {1: 5}))
    assert between(same, same) == Served()
