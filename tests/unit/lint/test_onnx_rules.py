from collections.abc import Mapping
from pathlib import Path

import pytest

from conch.lint.fix import fix
from conch.model_config import read_config
from tests.fakes.lint_repositories import BFLOAT16, FLOAT, INT64, STRING, findings, found, onnx, onnx_model, write

X, Y = {"x": (FLOAT, ["batch", 4])}, {"y": (FLOAT, ["batch", 3])}
HEAD = 'name: "m"\nbackend: "onnxruntime"\ninstance_group { count: 1 kind: KIND_CPU }\n'
BATCHED = HEAD + "max_batch_size: 8\n"
SINGLE = HEAD + "max_batch_size: 0\n"
INPUT, OUTPUT = (
    'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n',
    'output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }\n',
)


def input_of(name: str = "x", kind: str = "FP32", dims: str = "4", more: str = "") -> str:
    return f'input {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] {more} }}\n'


def output_of(name: str = "y", kind: str = "FP32", dims: str = "3", more: str = "") -> str:
    return f'output {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] {more} }}\n'


def build(root: Path, config: str, inputs: Mapping = X, outputs: Mapping = Y) -> Path:
    return onnx_model(root, config=config, model=onnx(inputs, outputs))


# Each breaks one rule: rule, config, inputs, outputs.
MENDED_BY_FIX = [
    ("R10", BATCHED + input_of(dims="-1, 4") + OUTPUT, X, Y),
    ("R10", BATCHED + input_of(dims="8, 4") + OUTPUT, X, Y),
    ("R10", BATCHED + INPUT + output_of(dims="-1, 3"), X, Y),
    ("R10", BATCHED + INPUT + output_of(dims="-1, -1"), X, Y),
    ("R10", BATCHED + input_of(dims="-1") + OUTPUT, {"x": (FLOAT, ["batch"])}, Y),
    ("R10", BATCHED + input_of(dims="1, -1, -1") + OUTPUT, {"x": (FLOAT, [None, "h", "w"])}, Y),
    ("R13", BATCHED + input_of(name="xs") + OUTPUT, X, Y),
    ("R13", BATCHED + input_of(kind="INT64") + OUTPUT, X, Y),
    ("R13", BATCHED + INPUT + output_of(kind="FP64"), X, Y),
    ("R13", BATCHED + input_of(dims="5") + OUTPUT, X, Y),
    ("R13", BATCHED + input_of(dims="4, 1, 1") + OUTPUT, X, Y),
    ("R13", BATCHED + INPUT + output_of(dims="-1"), X, Y),
    ("R13", SINGLE + input_of(dims="4") + output_of(dims="1, 3"), {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 3])}),
]
FOR_A_PERSON = [
    ("R11", BATCHED + INPUT + OUTPUT, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 3])}),
    ("R11", BATCHED + INPUT + OUTPUT, X, {"y": (FLOAT, [1, 3])}),
    ("R11", BATCHED + input_of(dims="1, 4") + output_of(dims="1, 3"), {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 3])}),
    ("R12", HEAD, X, Y),
    ("R12", HEAD + input_of(dims="-1, 4") + output_of(dims="-1, 3"), X, Y),
    ("R12", SINGLE + input_of(dims="-1, 4"), X, Y),
    ("R13", BATCHED + INPUT + output_of(name="quite_another"), X, {**Y, "z": (FLOAT, ["batch", 3])}),
    ("R13", BATCHED + INPUT + OUTPUT, {**X, "mask": (INT64, ["batch", 4])}, Y),
    ("R13", BATCHED + INPUT + OUTPUT, {"x": (BFLOAT16, ["batch", 4])}, Y),
    ("R13", BATCHED + INPUT + OUTPUT, {"x": (BFLOAT16 + 1, ["batch", 4])}, Y),
]

SOUND = {
    "batched": (BATCHED + INPUT + OUTPUT, X, Y),
    "open input": (BATCHED + input_of(dims="-1") + OUTPUT, {"x": (FLOAT, ["batch", "n"])}, Y),
    "narrower input": (BATCHED + input_of(dims="7") + OUTPUT, {"x": (FLOAT, ["batch", "n"])}, Y),
    "no rank": (BATCHED + INPUT + OUTPUT, {"x": (FLOAT, None)}, {"y": (FLOAT, None)}),
    "fixed": (SINGLE + input_of(dims="1, 4") + output_of(dims="1, 3"), {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 3])}),
    "scalar": (SINGLE + input_of(dims="1") + output_of(dims="1, 3"), {"x": (FLOAT, [])}, {"y": (FLOAT, [1, 3])}),
    "reshape": (
        SINGLE
        + input_of(dims="4", more="reshape { shape: [ 1, 4 ] }")
        + output_of(dims="3", more="reshape { shape: [ 1, 3 ] }"),
        {"x": (FLOAT, [1, 4])},
        {"y": (FLOAT, [1, 3])},
    ),
    "row of numbers": (
        BATCHED + input_of(dims="1", more="reshape { shape: [ ] }") + OUTPUT,
        {"x": (FLOAT, ["batch"])},
        Y,
    ),
    "fewer outputs": (BATCHED + INPUT + OUTPUT, X, {**Y, "z": (FLOAT, ["batch", 3])}),
    "completed": (BATCHED, X, Y),
    "completed, fixed": (HEAD, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 3])}),
    "default": (BATCHED + INPUT + OUTPUT + input_of("w", dims="4"), {**X, "w": (FLOAT, ["batch", 4])}, Y),
    "default left out": (BATCHED + INPUT + OUTPUT, {**X, "w": (FLOAT, ["batch", 4])}, Y),
    "sequence": (
        BATCHED + INPUT + OUTPUT + 'sequence_batching { control_input { name: "start" control { '
        "kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } } "
        'state { input_name: "in" output_name: "out" data_type: TYPE_FP32 dims: [ 4 ] } }',
        {**X, "start": (FLOAT, ["batch", 1]), "in": (FLOAT, ["batch", 4])},
        {**Y, "out": (FLOAT, ["batch", 4])},
    ),
    "ragged": (
        BATCHED
        + input_of(dims="-1", more="allow_ragged_batch: true")
        + OUTPUT
        + 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "x" }',
        {"x": (FLOAT, ["all"]), "ends": (FLOAT, ["batch"])},
        Y,
    ),
}


@pytest.mark.parametrize(("rule", "config", "inputs", "outputs"), [*MENDED_BY_FIX, *FOR_A_PERSON])
def test_a_config_that_breaks_one_rule_has_that_finding_alone(
    rule: str, config: str, inputs: Mapping, outputs: Mapping, tmp_path: Path
) -> None:
    build(tmp_path, config, inputs, outputs)
    assert found(tmp_path) == [rule]


@pytest.mark.parametrize(("config", "inputs", "outputs"), SOUND.values(), ids=SOUND.keys())
def test_a_config_that_fits_its_model_has_no_finding(
    config: str, inputs: Mapping, outputs: Mapping, tmp_path: Path
) -> None:
    build(tmp_path, config, inputs, outputs)
    assert findings(tmp_path) == ()


@pytest.mark.parametrize(("rule", "config", "inputs", "outputs"), MENDED_BY_FIX)
def test_what_is_mended_passes(rule: str, config: str, inputs: Mapping, outputs: Mapping, tmp_path: Path) -> None:
    build(tmp_path, config, inputs, outputs)
    report = fix(tmp_path)
    assert [m.rules for m in report.mended] == [(rule,)]
    assert report.after.findings == ()


def test_the_batch_dimension_is_taken_out_of_dims(tmp_path: Path) -> None:
    model = build(tmp_path, BATCHED + input_of(dims="-1, 4") + OUTPUT)
    fix(tmp_path)
    assert list(read_config(model / "config.pbtxt").input[0].dims) == [4]


def test_a_batch_of_single_numbers_is_mended_with_a_reshape(tmp_path: Path) -> None:
    model = build(tmp_path, BATCHED + input_of(dims="-1") + OUTPUT, {"x": (FLOAT, ["batch"])})
    fix(tmp_path)
    (tensor,) = read_config(model / "config.pbtxt").input
    assert (list(tensor.dims), list(tensor.reshape.shape), tensor.HasField("reshape")) == ([1], [], True)


def test_a_wrong_name_shows_both_lists_and_takes_the_nearest(tmp_path: Path) -> None:
    inputs = {"input_ids": (INT64, ["b", "n"]), "attention_mask": (INT64, ["b", "n"])}
    config = BATCHED + input_of("input_id", "INT64", "-1") + input_of("mask_of_attention", "INT64", "-1") + OUTPUT
    model = build(tmp_path, config, inputs)
    missing, first, second = findings(tmp_path)
    assert first.place == "input[input_id].name"
    assert first.got == "config.pbtxt: input_id, mask_of_attention"
    assert first.expected == "model 1/model.onnx: input_ids INT64 [b, n]; attention_mask INT64 [b, n]".replace(
        "INT64", "TYPE_INT64"
    )
    assert first.fix == 'name: "input_ids"'
    assert [f.fixable for f in (first, second, missing)] == [True, False, False]
    assert missing.fix == 'input { name: "attention_mask" data_type: TYPE_INT64 dims: [-1] }'
    report = fix(tmp_path)
    assert [t.name for t in read_config(model / "config.pbtxt").input] == ["input_ids", "mask_of_attention"]
    assert len(report.after.errors) == 2


def test_each_version_that_serves_is_held_against_the_config(tmp_path: Path) -> None:
    config = BATCHED + INPUT + OUTPUT + "version_policy { all { } }\n"
    write(build(tmp_path, config), {"2/model.onnx": onnx({"x": (INT64, ["batch", 4])}), "3/model.onnx": onnx()})
    (finding,) = findings(tmp_path)
    assert (finding.rule, finding.expected) == ("R13", "TYPE_INT64")


def test_versions_that_share_a_fault_have_one_finding(tmp_path: Path) -> None:
    config = BATCHED + input_of(dims="-1, 4") + output_of("other") + "version_policy { all { } }\n"
    write(build(tmp_path, config), {"2/model.onnx": onnx()})
    assert found(tmp_path) == ["R10", "R13"]


def test_versions_that_do_not_serve_may_differ(tmp_path: Path) -> None:
    write(build(tmp_path, BATCHED + INPUT + OUTPUT, {"other": (STRING, [1])}), {"2/model.onnx": onnx()})
    assert findings(tmp_path) == ()


def test_no_batching_that_is_stated_is_a_note_alone(tmp_path: Path) -> None:
    build(tmp_path, SINGLE + input_of(dims="-1, 4") + output_of(dims="-1, 3"))
    assert [(f.rule, f.severity) for f in findings(tmp_path)] == [("R12", "note")]


def test_a_model_in_a_folder_named_as_the_file_is_read(tmp_path: Path) -> None:
    files = {"config.pbtxt": BATCHED + input_of("other") + OUTPUT, "1/model.onnx/model.onnx": onnx()}
    write(tmp_path / "m", files)
    assert found(tmp_path) == ["R13"]
