"""Each rule with evidence that triggers it, and with evidence that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conch.model_config import parse
from perf.explain.breakdown import Breakdown, Part
from perf.explain.counters import Counters
from perf.explain.evidence import Evidence, Padding, StepEvidence, gather
from perf.explain.findings import RULES, findings

# One that nothing is to be said of: batches form, the queue is short, threads fit.
STEP = StepEvidence(
    "m_model",
    backend="onnxruntime",
    delay_us=0,
    instances=2,
    threads=1,
    threads_parameter="intra_op_thread_count",
    requests=1000,
    executions=400,
    average_batch=2.5,
    queue_ms=0.5,
    compute_infer_ms=4.0,
)
PRE = replace(STEP, model="m_pre", backend="python", threads=None, threads_parameter="", compute_infer_ms=3.5)
GOOD = Evidence("m", True, (PRE, STEP), concurrency=8, cores=2, measured_ms=10.0, hop_ms=0.5, requests=1000)
ALONE = replace(STEP, executions=1000, average_batch=1.0)
WAITS = replace(ALONE, queue_ms=3.0)


def with_step(step: StepEvidence, **changes: object) -> Evidence:
    return replace(GOOD, steps=(PRE, step), **changes)  # type: ignore[arg-type]


def padded(*widths: int, tokens: int) -> Padding:
    return Padding("m_pre", tokens, sum(widths), widths)


VARIED = padded(3, 5, 15, tokens=23)
TRIGGERS = {
    "failed": (replace(GOOD, failures=3, failure="HTTP 500: no"), "failed-requests", "conch infer"),
    "no batcher": (with_step(replace(WAITS, delay_us=None)), "does-not-batch", "dynamic_batching { }"),
    "rows of one request are no batch": (
        with_step(replace(WAITS, delay_us=None, average_batch=2.0, rows_a_request=2.0)),
        "does-not-batch",
        "dynamic_batching { }",
    ),
    "no batches": (with_step(replace(WAITS, delay_us=None, max_batch_size=0)), "does-not-batch", "max_batch_size: 8"),
    "low concurrency": (with_step(ALONE, concurrency=2), "does-not-batch", "more requests in flight"),
    "delay 0": (with_step(ALONE), "does-not-batch", "max_queue_delay_microseconds: 1000"),
    "shapes": (
        with_step(replace(WAITS, variable_dims=True), padding=VARIED),
        "does-not-batch",
        "pad_to_multiple_of",
    ),
    "shapes and no batcher": (
        with_step(replace(WAITS, variable_dims=True, delay_us=None), padding=VARIED),
        "does-not-batch",
        "with dynamic_batching { } in that of m_model",
    ),
    "shapes that nobody saw": (
        with_step(replace(WAITS, variable_dims=True)),
        "does-not-batch",
        "to a few sizes",
    ),
    "padding": (replace(GOOD, padding=padded(16, 16, tokens=25)), "padding-waste", "smaller pad_to_multiple_of"),
    "threads": (with_step(replace(STEP, threads=2)), "oversubscribed-threads", 'string_value: "1"'),
    "instances": (
        with_step(replace(STEP, instances=4, threads=1)),
        "oversubscribed-threads",
        "instance_group { count: 2 }",
    ),
    "cache misses": (
        with_step(replace(STEP, cache_enabled=True, cache_misses=1000)),
        "cache-never-hits",
        "take response_cache out",
    ),
    "no cache": (with_step(replace(STEP, cache_enabled=True)), "cache-never-hits", "--cache-mb"),
    "ensemble's cache": (
        replace(GOOD, cache_enabled=True, cache_misses=1000),
        "cache-never-hits",
        "out of the config.pbtxt of m,",
    ),
    "queue": (
        with_step(replace(STEP, instances=1, threads=2, queue_ms=6.0)),
        "queue-dominates",
        "instance_group { count: 2 } in the config.pbtxt of m_model with intra_op_thread_count 1",
    ),
    "queue on a full machine": (with_step(replace(STEP, queue_ms=6.0)), "queue-dominates", "fewer requests in flight"),
    "queue on a GPU": (
        with_step(replace(STEP, queue_ms=6.0, on_gpu=True, threads=None)),
        "queue-dominates",
        "instance_group { count: 3 }",
    ),
    "queue under a slow client": (
        with_step(replace(STEP, queue_ms=3.0), outside_ms=4.0),
        "queue-dominates",
        "fewer requests",
    ),
    "delay": (with_step(replace(STEP, delay_us=5000, queue_ms=5.0)), "delay-costs", "delay 0"),
    "delay for nothing": (with_step(replace(WAITS, delay_us=5000)), "delay-costs", "dynamic_batching { }"),
    "bottleneck": (with_step(replace(STEP, compute_infer_ms=7.0)), "bottleneck", "--precision int8"),
    "bottleneck in Python": (
        replace(GOOD, steps=(replace(PRE, compute_infer_ms=8.0), STEP)),
        "bottleneck",
        "the code of m_pre",
    ),
    "hops": (replace(GOOD, hop_ms=8.0), "hops-cost-more", "--pipeline single"),
    "outside": (replace(GOOD, outside_ms=6.0), "outside-the-server", "binary tensors"),
}
QUIET = {
    "all is well": GOOD,
    "one at a time asks for no batches": with_step(ALONE, concurrency=1),
    "too few to tell": with_step(replace(WAITS, delay_us=None, executions=5)),
    "no batcher and nobody waits": with_step(replace(ALONE, delay_us=None)),
    "clients send batches that merge": with_step(replace(STEP, average_batch=4.0, rows_a_request=2.0)),
    "one width": replace(GOOD, padding=padded(16, 16, tokens=31)),
    "a little padding": replace(GOOD, padding=padded(8, 16, tokens=21)),
    "widths differ and nobody waits": with_step(replace(ALONE, variable_dims=True), padding=VARIED),
    "widths nobody saw, nobody waits": with_step(replace(ALONE, variable_dims=True), measured_ms=99.0),
    "a step too small to matter": with_step(ALONE, concurrency=2, measured_ms=99.0),
    "a thread a core": with_step(replace(STEP, instances=1, threads=2)),
    "a cache that hits": with_step(replace(STEP, cache_enabled=True, cache_hits=1, cache_misses=999)),
    "a cache hardly asked": with_step(replace(STEP, cache_enabled=True, requests=3, cache_misses=3)),
    "a delay that nobody feels": with_step(replace(STEP, delay_us=100, queue_ms=0.1)),
    "a model alone is no bottleneck": replace(GOOD, ensemble=False, steps=(replace(STEP, compute_infer_ms=9.0),)),
    "a model alone has no hops": replace(GOOD, ensemble=False, steps=(STEP,), hop_ms=8.0),
}


@pytest.mark.parametrize(("evidence", "rule", "change"), TRIGGERS.values(), ids=TRIGGERS)
def test_a_rule_speaks_up(evidence: Evidence, rule: str, change: str) -> None:
    found = [finding for finding in findings(evidence) if finding.rule == rule]
    assert len(found) == 1
    assert change in found[0].change
    assert found[0].what
    assert found[0].evidence


@pytest.mark.parametrize("evidence", QUIET.values(), ids=QUIET)
def test_and_is_quiet_otherwise(evidence: Evidence) -> None:
    assert findings(evidence) == ()


def test_every_rule_is_tried() -> None:
    spoken = {rule.__name__ for rule in RULES for evidence, _, _ in TRIGGERS.values() if list(rule(evidence))}
    assert spoken == {rule.__name__ for rule in RULES}


def test_the_delay_is_not_mistaken_for_too_few_instances() -> None:
    rules = [f.rule for f in findings(with_step(replace(STEP, delay_us=9000, queue_ms=8.0)))]
    assert rules == ["delay-costs"]


def test_failures_come_first_then_what_most_time_depends_on() -> None:
    bad = with_step(replace(STEP, queue_ms=6.0, compute_infer_ms=7.0), failures=1, outside_ms=8.0)
    found = findings(bad)
    assert found[0].rule == "failed-requests"
    stakes = [f.at_stake_ms for f in found[1:]]
    assert stakes == sorted(stakes, reverse=True)
    assert len(stakes) == 3


CONFIGS = {
    "m": parse('name: "m" platform: "ensemble" response_cache { enable: true }'),
    "m_pre": parse('name: "m_pre" backend: "python" input { name: "x" dims: [1] } instance_group { count: 3 }'),
    "m_model": parse(
        'name: "m_model" backend: "onnxruntime" max_batch_size: 4 input { name: "y" dims: [-1] } '
        "dynamic_batching { max_queue_delay_microseconds: 70 } instance_group { count: 1 } instance_group { count: 1 }"
    ),
}
WHERE = Breakdown(
    measured_ms=9.0,
    requests=50,
    parts=(
        Part("", "to_server", 0, 1.0),
        Part("m_model", "hop", 1, 0.5),
        Part("m_model", "queue", 1.5, 2.0),
        Part("m_model", "compute_infer", 3.5, 5.0),
        Part("", "respond", 8.5, 0.25),
    ),
    source="traces",
    sampled=50,
    beside_ms={},
)


def test_evidence_is_put_together() -> None:
    counted = {
        "m": Counters(requests=50, cache_misses=50),
        "m_model": Counters(requests=50, rows=100, executions=25),
    }
    e = gather("m", ("m_pre", "m_model"), CONFIGS, counted, WHERE, concurrency=4, cores=6, failures=2, failure="no")
    assert (e.hop_ms, e.outside_ms, e.measured_ms, e.cache_enabled, e.cache_misses) == (0.5, 1.25, 9.0, True, 50)
    pre, model = e.steps
    assert (pre.instances, pre.threads, pre.delay_us, pre.variable_dims) == (3, None, None, False)
    assert (model.instances, model.threads, model.delay_us, model.variable_dims) == (2, 6, 70, True)
    assert (model.average_batch, model.rows_a_request, model.queue_ms, model.compute_ms) == (4.0, 2.0, 2.0, 5.0)


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        ('backend: "onnxruntime"', 6),
        ('backend: "onnxruntime" parameters { key: "intra_op_thread_count" value { string_value: "2" } }', 2),
        ('backend: "onnxruntime" parameters { key: "intra_op_thread_count" value { string_value: "0" } }', 6),
        ('backend: "pytorch" parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "3" } }', 3),
        ('backend: "python" parameters { key: "intra_op_thread_count" value { string_value: "1" } }', 1),
        ('backend: "python"', None),
        ('backend: "onnxruntime" instance_group { kind: KIND_GPU }', None),
    ],
)
def test_threads_are_known_where_a_config_says_or_a_backend_has_a_default(config: str, threads: int | None) -> None:
    e = gather("m", (), {"m": parse(f'name: "m" {config}')}, {}, WHERE, concurrency=1, cores=6)
    assert e.steps[0].threads == threads
