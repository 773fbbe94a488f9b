"""What of a model tune may turn, and how it tells what it found."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from conch.errors import ConchError
from conch.manifest import Manifest
from conch.repository import Repository
from perf.points import Machine
from perf.tune.outcome import Outcome, document, reason
from perf.tune.search import Change, Duel, Goal, Reading
from perf.tune.settings import Batching, ModelTuning, Tuning
from perf.tune.tunable import Tunable, look

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: [1] } output { name: "y" data_type: TYPE_FP32 dims: [1] }'


def write(root: Path, name: str, config: str, files: dict[str, str] | None = None, version: int = 1) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (files or {"model.onnx": ""}).items():
        (folder / file).write_text(text)
    (root / name / "config.pbtxt").write_text(f'name: "{name}" {TENSORS} {config}')
    return folder


def ensemble(name: str, size: int, *members: str) -> str:
    steps = " ".join(f'step {{ model_name: "{m}" model_version: -1 }}' for m in members)
    return f'platform: "ensemble" max_batch_size: {size} ensemble_scheduling {{ {steps} }}'


def only(root: Path, name: str) -> Tunable:
    (found,) = look(Repository(root), name).tunables
    return found


@pytest.mark.parametrize(
    ("config", "files", "threads", "padding"),
    [
        ('backend: "onnxruntime"', {"model.onnx": ""}, "intra_op_thread_count", ""),
        ('platform: "onnxruntime_onnx"', {"model.onnx": ""}, "intra_op_thread_count", ""),
        ('backend: "pytorch"', {"model.pt": ""}, "INTRA_OP_THREAD_COUNT", ""),
        ('backend: "python"', {"model.py": ""}, "", ""),
        ('backend: "python"', {"model.py": "", "text_encoding.py": ""}, "", "pad_to_multiple_of"),
    ],
)
def test_each_kind_of_model_has_its_own_parameters(
    tmp_path: Path, config: str, files: dict[str, str], threads: str, padding: str
) -> None:
    write(tmp_path, "m", f"{config} max_batch_size: 8", files)
    found = only(tmp_path, "m")
    assert (found.thread_parameter, found.pad_parameter) == (threads, padding)


@pytest.mark.parametrize(
    ("parameters", "threads", "padding"),
    [
        ("", "intra_op_thread_count", "pad_to_multiple_of"),
        (
            'parameters { key: "model.intra_op_thread_count" value { string_value: "1" } } '
            'parameters { key: "preprocess.pad_to_multiple_of" value { string_value: "8" } }',
            "model.intra_op_thread_count",
            "preprocess.pad_to_multiple_of",
        ),
    ],
)
def test_a_single_pipeline_has_those_of_its_parts(tmp_path: Path, parameters: str, threads: str, padding: str) -> None:
    plan = {
        "steps": [{"part": "text_tokenizer", "role": "preprocess"}, {"part": "onnx_graph", "role": "model"}],
    }
    files = {"model.py": "", "pipeline.json": json.dumps(plan)}
    write(tmp_path, "m", f'backend: "python" max_batch_size: 8 {parameters}', files)
    found = only(tmp_path, "m")
    assert (found.thread_parameter, found.pad_parameter, found.has_graph) == (threads, padding, True)


def test_a_member_takes_what_any_ensemble_sends(tmp_path: Path) -> None:
    write(tmp_path, "m", 'backend: "onnxruntime" max_batch_size: 64')
    write(tmp_path, "e", ensemble("e", 8, "m"), {"note": ""})
    write(tmp_path, "f", ensemble("f", 32, "m"), {"note": ""})
    assert only(tmp_path, "e").smallest_batch == 32


@pytest.mark.parametrize(("exported", "due"), [(None, 64), (16, 16)])
def test_clients_may_send_what_the_model_was_exported_for(tmp_path: Path, exported: int | None, due: int) -> None:
    folder = write(tmp_path, "m", 'backend: "onnxruntime" max_batch_size: 64')
    settings = {"max_batch_size": exported} if exported else {}
    Manifest("m", "", {}, {}, "", settings=settings).write(folder)
    assert only(tmp_path, "m").smallest_batch == due


@pytest.mark.parametrize(
    ("groups", "note"),
    [
        ("instance_group { count: 1 kind: KIND_GPU }", "asks for a GPU"),
        ("instance_group { count: 1 kind: KIND_CPU } instance_group { count: 2 kind: KIND_CPU }", "2 instance groups"),
    ],
)
def test_where_instances_are_not_one_number_they_stay(tmp_path: Path, groups: str, note: str) -> None:
    write(tmp_path, "m", f'backend: "onnxruntime" max_batch_size: 8 {groups}')
    assert not only(tmp_path, "m").takes_instances
    assert note in " ".join(look(Repository(tmp_path), "m").notes)


@pytest.mark.parametrize(
    ("batching", "due"),
    [("dynamic_batching { }", 1), ("dynamic_batching { default_queue_policy { max_queue_size: 64 } }", 2)],
)
def test_a_limit_of_the_queue_asks_for_two_instances(tmp_path: Path, batching: str, due: int) -> None:
    write(tmp_path, "m", f'backend: "onnxruntime" max_batch_size: 8 {batching}')
    assert only(tmp_path, "m").fewest_instances == due


@pytest.mark.parametrize("config", ["sequence_batching { }", "model_transaction_policy { decoupled: true }"])
def test_what_is_no_question_and_answer_is_refused(tmp_path: Path, config: str) -> None:
    write(tmp_path, "m", f'backend: "python" max_batch_size: 8 {config}', {"model.py": ""})
    with pytest.raises(ConchError, match="cannot be tuned"):
        look(Repository(tmp_path), "m")


def test_only_other_precisions_of_the_same_weights_are_variants(tmp_path: Path) -> None:
    config = 'backend: "onnxruntime" max_batch_size: 8'
    for version, weights, precision in ((1, "a", "int8"), (2, "b", "int8"), (3, "a", "fp32"), (4, "a", "fp32")):
        folder = write(tmp_path, "m", config, version=version)
        text = (tmp_path / "m" / "config.pbtxt").read_text()
        Manifest("m", "", {"sha256": weights}, {}, text, settings={"precision": precision}).write(folder)
    assert list(look(Repository(tmp_path), "m").variants) == [1]


NOW = ModelTuning(1, 2, 32, Batching(5000))
BEST = dataclasses.replace(NOW, instances=2, threads=1, batching=None)
BEFORE, AFTER = Tuning((("m", NOW),), 2), Tuning((("m", BEST),), 1)


@pytest.mark.parametrize(
    ("what", "gain", "text"),
    [
        ("instances", 1.9, "2 instances of 1 thread: 1.90 times 1 of 2 (requests/s)"),
        ("batching", 1.2, "no batching: 1.20 times batching with a delay of 5 ms (requests/s)"),
        ("version", 2.0, "version 1 (int8): 2.00 times version 2 (fp32) (requests/s)"),
        ("batching", math.inf, "no batching: keeps the p99 within the limit, batching with a delay of 5 ms does not"),
    ],
)
def test_each_change_has_its_reason(what: str, gain: float, text: str) -> None:
    change = Change("m" if what != "version" else "", what, BEFORE, AFTER, gain)
    assert reason(change, Goal(), {1: "int8", 2: "fp32"}) == text


def test_latency_is_told_as_latency() -> None:
    text = reason(Change("m", "batching", BEFORE, AFTER, 1.5), Goal("latency"), {})
    assert text == "no batching: a p99 1.50 times shorter than with batching with a delay of 5 ms"


def test_a_change_that_was_not_measured_alone_says_so() -> None:
    assert "not measured alone" in reason(Change("m", "batching", BEFORE, AFTER), Goal(), {})


def test_the_report_is_json_even_where_a_gain_is_infinite() -> None:
    goal = Goal("throughput", 10.0)
    outcome = Outcome(
        name="m", at="2026-01-01T00:00:00+00:00", machine=Machine("c", 2, 1.0, "3.11", "2.51.0", "Linux"), goal=goal,
        concurrency=8, protocol="grpc", version=2, before=BEFORE, after=AFTER,
        changes=(Change("m", "batching", BEFORE, AFTER, math.inf),),
        measured=Duel(Reading(10, 50, 90), Reading(20, 5, 9)), trials=(), finished=True, seconds=1.0, precisions={},
    )  # fmt: skip
    found = json.loads(json.dumps(document(outcome), allow_nan=False))
    assert found["gain"] is None
    assert found["p99_limit_ms"] == 10.0
    assert found["settings_after"]["models"]["m"]["instances"] == 2
