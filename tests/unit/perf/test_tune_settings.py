"""Settings as values, and the config.pbtxt that they stand for."""

from __future__ import annotations

import dataclasses

import pytest

from conch.lint.config_edit import edited
from conch.model_config import parse
from perf.tune.knobs import knobs, rules
from perf.tune.settings import Batching, ModelTuning, Tuning, read_tuning, with_tuning
from perf.tune.tunable import Tunable

CONFIG = """\
name: "m"   # ours
backend: "onnxruntime"
max_batch_size: 32
# as many as cores
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { max_queue_delay_microseconds: 5000 }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
"""
THREADS, PADDING = "intra_op_thread_count", "pad_to_multiple_of"
NOW = ModelTuning(1, 2, 32, Batching(5000), 1)


def test_reads_what_a_config_says() -> None:
    assert read_tuning(parse(CONFIG), THREADS, PADDING) == NOW


@pytest.mark.parametrize(
    "tuned",
    [
        NOW,
        dataclasses.replace(NOW, instances=4, threads=1),
        dataclasses.replace(NOW, threads=0),
        dataclasses.replace(NOW, batching=None),
        dataclasses.replace(NOW, batching=Batching(0, (4,))),
        dataclasses.replace(NOW, batching=Batching()),
        dataclasses.replace(NOW, max_batch_size=64),
        dataclasses.replace(NOW, pad_multiple=16),
    ],
)
def test_what_is_written_is_read_again(tuned: ModelTuning) -> None:
    written = with_tuning(parse(CONFIG), tuned, THREADS, PADDING)
    assert read_tuning(parse(edited(CONFIG, parse(CONFIG), written).text), THREADS, PADDING) == tuned


def test_comments_and_what_was_not_tuned_stay() -> None:
    after = with_tuning(parse(CONFIG), dataclasses.replace(NOW, instances=2, threads=1), THREADS)
    text = edited(CONFIG, parse(CONFIG), after).text
    assert "# ours" in text
    assert "# as many as cores" in text
    assert text.splitlines()[:4] == CONFIG.splitlines()[:4]
    assert "dynamic_batching { max_queue_delay_microseconds: 5000 }" in text


@pytest.mark.parametrize("kind", ["", "kind: KIND_CPU", "kind: KIND_AUTO"])
def test_the_place_of_instances_is_left_alone(kind: str) -> None:
    config = parse(f'name: "m" max_batch_size: 4 instance_group {{ count: 1 {kind} }}')
    after = with_tuning(config, dataclasses.replace(read_tuning(config), instances=3))
    assert (after.instance_group[0].kind, after.instance_group[0].count) == (config.instance_group[0].kind, 3)


def test_a_config_without_instance_group_names_no_gpu() -> None:
    after = with_tuning(parse('name: "m" max_batch_size: 4'), ModelTuning(2, 0, 4))
    assert "KIND_GPU" not in str(after)
    assert after.instance_group[0].count == 2


def test_no_batching_keeps_the_limit_of_the_queue() -> None:
    config = parse(
        'name: "m" max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 100 '
        "default_queue_policy { max_queue_size: 64 } }"
    )
    after = with_tuning(config, dataclasses.replace(read_tuning(config), batching=None))
    assert after.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert list(after.dynamic_batching.preferred_batch_size) == [1]
    assert after.dynamic_batching.max_queue_delay_microseconds == 0
    assert read_tuning(after).batching is None


TUNABLE = Tunable("m", NOW, THREADS, PADDING, smallest_batch=32, batches=True, has_graph=True)
START = Tuning((("m", NOW),))


def test_no_position_takes_less_than_what_is_needed() -> None:
    found = [o.of("m").max_batch_size for k in knobs(START, [TUNABLE], 4, {}) for o in k.options]
    assert min(found) == 32
    assert max(found) == 64


def test_more_instances_get_fewer_threads() -> None:
    (found,) = [k for k in knobs(START, [TUNABLE], 4, {}) if k.name == "instances"]
    pairs = {(o.of("m").instances, o.of("m").threads) for o in found.options}
    assert {(1, 4), (2, 2), (4, 1), (8, 1)} <= pairs


def test_a_queue_with_a_limit_is_not_left_to_one_instance() -> None:
    limited = dataclasses.replace(TUNABLE, fewest_instances=2)
    start = START.having("m", dataclasses.replace(NOW, instances=3))
    tried = [rules(start, [limited], 4), *knobs(start, [limited], 4, {})]
    assert min(o.of("m").instances for knob in tried for o in knob.options) == 2


def test_the_model_that_takes_the_time_is_turned_first() -> None:
    other = dataclasses.replace(TUNABLE, name="n", has_graph=False, thread_parameter="")
    start = Tuning((("n", NOW), ("m", NOW)))
    found = knobs(start, [other, TUNABLE], 2, {"m": 0.9, "n": 0.1})
    assert found[0].model == "m"
    assert [k.model for k in found].index("n") > 1


def test_the_rules_leave_python_around_the_graph_one_instance() -> None:
    other = dataclasses.replace(TUNABLE, name="n", has_graph=False, thread_parameter="")
    found = rules(Tuning((("n", NOW), ("m", NOW))), [other, TUNABLE], 4)
    assert {o.of("n").instances for o in found.options} == {1}
    assert (4, 1) in {(o.of("m").instances, o.of("m").threads) for o in found.options}


@pytest.mark.parametrize(
    ("batching", "text"),
    [
        (Batching(), "batching with no delay"),
        (Batching(5000), "batching with a delay of 5 ms"),
        (Batching(0, (4,)), "batching with no delay, 4 at a time"),
    ],
)
def test_batching_reads_as_a_person_says_it(batching: Batching, text: str) -> None:
    assert str(batching) == text
