"""The whole path with `--no-trial`: what it writes, and what it refuses with nothing written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from conch.errors import ConchError, ExportError, ParityError
from conch.manifest import tensor_from_json
from conch.model_config import signature_of
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from export import optimize, steps
from export.options import ExportOptions
from export.source import PipelineParts, PythonPart, Source
from tests.fakes import tiny_onnx


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions("tiny", repository=tmp_path / "models", max_batch_size=8, trial=False)


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "lock")


def untouched(options: ExportOptions) -> bool:
    """Whether the repository, and its staging, hold no file."""
    return tree(options.repository) == [] and tree(Repository(options.repository).staging) == []


def test_a_version_has_config_weights_and_manifest(tmp_path: Path, options: ExportOptions) -> None:
    report = steps.run(tiny_onnx.source(tmp_path), options)
    assert report.path == options.repository / "tiny" / "1"
    assert tree(options.repository) == ["tiny/1/manifest.json", "tiny/1/model.onnx", "tiny/config.pbtxt"]
    repository = Repository(options.repository)
    assert signature_of(repository.config("tiny")) == tiny_onnx.SIGNATURE
    manifest = repository.manifest("tiny", 1)
    assert manifest is not None
    weights = (report.path / "model.onnx").read_bytes()
    assert manifest.files == {"model.onnx": hashlib.sha256(weights).hexdigest()}
    assert (manifest.opset, manifest.ir_version) == (20, 10)
    assert manifest.settings["precision"] == "fp32"
    assert manifest.source["kind"] == "test"
    assert manifest.source["versions"]["onnx"] == onnx.__version__
    assert [row.output for row in manifest.parity] == ["y"]
    assert manifest.config == (options.repository / "tiny" / "config.pbtxt").read_text(encoding="utf-8")


def test_golden_answers_are_the_models_own(tmp_path: Path, options: ExportOptions) -> None:
    steps.run(tiny_onnx.source(tmp_path), options)
    manifest = Repository(options.repository).manifest("tiny", 1)
    assert manifest is not None
    (golden,) = manifest.golden
    x, y = tensor_from_json(golden.inputs["x"]), tensor_from_json(golden.outputs["y"])
    assert x.shape == (1, 4)
    np.testing.assert_allclose(y, x @ tiny_onnx.WEIGHTS, atol=1e-6)


def test_the_next_export_is_the_next_version(tmp_path: Path, options: ExportOptions) -> None:
    source = tiny_onnx.source(tmp_path)
    assert [steps.run(source, options).version for _ in range(2)] == [1, 2]


def test_the_report_is_json_and_names_the_commands(tmp_path: Path, options: ExportOptions) -> None:
    document = steps.run(tiny_onnx.source(tmp_path), options).to_json()
    assert document["serve"] == f"conch serve --repository {options.repository}"
    assert document["infer"] == "conch infer tiny --json FILE.json"
    assert document["models"]["tiny"] > 0
    assert set(document["steps_s"]) >= {"convert", "check the graph", "compare with the source", "write", "commit"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(tiny_onnx.linear(batch=1), "fixed the batch dimension", id="batch"),
        pytest.param(tiny_onnx.frozen_inside(), "does not run with a batch of 1", id="batch inside"),
        pytest.param(tiny_onnx.linear(ir_version=12), "IR version is too new", id="IR"),
        pytest.param(tiny_onnx.linear(opset=22), "opset is too new", id="opset"),
        pytest.param(tiny_onnx.linear(output="z"), "no output named y", id="name"),
        pytest.param(tiny_onnx.linear(weights=tiny_onnx.WEIGHTS * 1.01), "does not answer as its source", id="values"),
    ],
)
def test_a_bad_model_is_refused_and_nothing_is_written(
    model: onnx.ModelProto, message: str, tmp_path: Path, options: ExportOptions
) -> None:
    with pytest.raises(ExportError, match=message) as raised:
        steps.run(tiny_onnx.source(tmp_path, model=model), options)
    assert raised.value.got is not None
    assert raised.value.expected is not None or "does not run" in message
    assert untouched(options)


def test_a_colliding_output_name_is_refused(tmp_path: Path, options: ExportOptions) -> None:
    signature = replace(tiny_onnx.SIGNATURE, outputs=(TensorSpec("embedding", "FP32", (3,)),))
    source = replace(tiny_onnx.source(tmp_path, model=tiny_onnx.colliding()), signature=signature)
    with pytest.raises(ExportError, match="the output name embedding breaks the graph"):
        steps.run(source, options)
    assert untouched(options)


def wild_source(tmp_path: Path) -> Source:
    weights = tiny_onnx.wild_weights()
    signature = ModelSignature((TensorSpec("x", "FP32", (64,)),), (TensorSpec("y", "FP32", (8,)),), 8)
    return replace(
        tiny_onnx.source(tmp_path, model=tiny_onnx.linear(weights=weights)),
        signature=signature,
        samples=tiny_onnx.wild_samples(),
        reference=lambda tensors: {"y": tensors["x"] @ weights},
    )


def test_int8_outside_its_tolerance_is_refused_with_both_values(tmp_path: Path, options: ExportOptions) -> None:
    source = wild_source(tmp_path)
    assert steps.run(source, replace(options, name="fp32")).version == 1
    with pytest.raises(ParityError) as raised:
        steps.run(source, replace(options, precision="int8"))
    assert "precision int8" in str(raised.value.where)
    assert "largest difference" in str(raised.value.got)
    assert "<=" in str(raised.value.expected)
    assert tree(options.repository / "tiny") == []


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("optimized", [False, True])
def test_a_tame_model_survives_lower_precision(
    precision: str, optimized: bool, tmp_path: Path, options: ExportOptions
) -> None:
    report = steps.run(tiny_onnx.source(tmp_path), replace(options, precision=precision, optimize=optimized))
    (row,) = report.parity
    assert 0 < row.largest_difference <= row.tolerance
    kind = "KIND_CPU" if precision == "int8" else "KIND_AUTO"
    (group,) = Repository(options.repository).config("tiny").instance_group
    assert group.kind == group.Kind.Value(kind)


def test_int8_of_a_graph_that_notes_its_weights_shapes(tmp_path: Path, options: ExportOptions) -> None:
    """Fails when onnxruntime's quantizer mends such notes itself: then `quantize._forget_shapes` can go."""
    report = steps.run(tiny_onnx.source(tmp_path, model=tiny_onnx.noted_gemm()), replace(options, precision="int8"))
    assert "MatMulInteger" in {node.op_type for node in onnx.load(str(report.path / "model.onnx")).graph.node}
    from onnxruntime.quantization import quantize_dynamic

    raw = tiny_onnx.save(tiny_onnx.noted_gemm(), tmp_path / "raw.onnx")
    with pytest.raises(Exception, match="Inferred shape and existing shape differ"):
        quantize_dynamic(raw, tmp_path / "int8.onnx")


def test_an_optimized_file_names_only_the_operator_sets_it_uses(tmp_path: Path, options: ExportOptions) -> None:
    report = steps.run(tiny_onnx.source(tmp_path), replace(options, precision="int8", optimize=True))
    model = onnx.load(str(report.path / "model.onnx"))
    assert {node.domain for node in model.graph.node} | {""} == {opset.domain for opset in model.opset_import}


def test_optimizing_leaves_out_the_fusion_that_is_slower_on_cpus(tmp_path: Path) -> None:
    """Its twin is onnxruntime's own choice: when that no longer fuses, `optimize.SLOWER_FUSIONS` can go."""
    (tmp_path / "model").mkdir()
    path = tiny_onnx.save(tiny_onnx.skip_layer_norm(), tmp_path / "model" / "model.onnx")
    fused = onnxruntime.SessionOptions()
    fused.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    fused.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(str(path), fused, providers=["CPUExecutionProvider"])
    optimize.optimize(path, tiny_onnx.source(tmp_path), ExportOptions("tiny"))
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert "LayerNormalization" in operators
    assert "SkipLayerNormalization" in {node.op_type for node in onnx.load(str(tmp_path / "fused.onnx")).graph.node}


def test_static_int8_fixes_its_scales_beforehand(tmp_path: Path, options: ExportOptions) -> None:
    data = tmp_path / "calibration.npz"
    np.savez(data, x=np.random.default_rng(2).normal(size=(32, 4)).astype(np.float32))
    report = steps.run(tiny_onnx.source(tmp_path), replace(options, precision="int8", calibration=data))
    operators = {node.op_type for node in onnx.load(str(report.path / "model.onnx")).graph.node}
    assert "QuantizeLinear" in operators
    assert "DynamicQuantizeLinear" not in operators


def test_atol_refuses_what_the_default_lets_through(tmp_path: Path, options: ExportOptions) -> None:
    source = tiny_onnx.source(tmp_path, reference=tiny_onnx.off_by(5e-5))
    assert steps.run(source, options).version == 1
    with pytest.raises(ParityError) as raised:
        steps.run(source, replace(options, atol=1e-5))
    assert raised.value.expected == "<= 1e-05"


def test_a_sources_own_tolerance_holds_where_no_atol_is_given(tmp_path: Path, options: ExportOptions) -> None:
    source = replace(tiny_onnx.source(tmp_path, reference=tiny_onnx.off_by(0.1)), tolerances={"fp32": 0.2})
    (row,) = steps.run(source, options).parity
    assert row.tolerance == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "torchscript", "precision": "int8"}, "work on ONNX graphs"),
        ({"calibration": Path("data.npz")}, "--calibration is for int8"),
        ({"opset": 23}, "opset 23 is too new for Triton 24.10"),
        ({"target": "24.09"}, "not in the table"),
        ({"precision": "int4"}, "a value that export does not know"),
        ({"rules": Path("rules.yaml")}, "--rules needs a model with labels"),
        ({"name": "../up"}, "no name for a model"),
    ],
)
def test_options_that_cannot_be_are_refused(
    change: dict[str, object], message: str, tmp_path: Path, options: ExportOptions
) -> None:
    with pytest.raises(ConchError, match=message):
        steps.run(tiny_onnx.source(tmp_path), replace(options, **change))
    assert untouched(options)


def pipeline(tmp_path: Path, backend: str = "classify") -> Source:
    """`linear` with its y as the logits of the classify backend."""
    out = (TensorSpec("label", "BYTES", (1,)), TensorSpec("score", "FP32", (1,)), TensorSpec("scores", "FP32", (3,)))
    part = PythonPart(
        role="postprocess",
        backend=backend,
        signature=ModelSignature((TensorSpec("logits", "FP32", (3,)),), out, 8),
        parameters={"activation": "softmax"},
        assets={"labels.txt": b"a\nb\nc\n"},
        packages=("numpy==1.26.4",),
    )
    parts = PipelineParts(
        inputs=(TensorSpec("x", "FP32", (4,)),),
        outputs=("label", "score", "scores"),
        requests=[{"x": np.ones((1, 4), np.float32)}],
        postprocess=part,
        model_output_map={"y": "logits"},
    )
    return replace(tiny_onnx.source(tmp_path), pipeline=parts)


def test_a_pipeline_is_written_whole(tmp_path: Path, options: ExportOptions) -> None:
    rules = tmp_path / "my_rules.yaml"
    rules.write_text("others: unsure\nthreshold: 0.5\n", encoding="utf-8")
    report = steps.run(pipeline(tmp_path), replace(options, rules=rules))
    assert list(report.models) == ["tiny_model", "tiny_postprocess", "tiny"]
    code = options.repository / "tiny_postprocess" / "1"
    assert {"model.py", "labels.txt", "rules.yaml", "manifest.json", "__pycache__"} <= {p.name for p in code.iterdir()}
    assert (code / "rules.yaml").read_bytes() == rules.read_bytes()
    assert (code / "__pycache__").read_bytes() == b""
    assert tree(options.repository / "tiny") == ["1/manifest.json", "config.pbtxt"]
    repository = Repository(options.repository)
    manifest = repository.manifest("tiny_postprocess", 1)
    assert manifest is not None
    assert manifest.packages == ("numpy==1.26.4", "pyyaml>=6")
    assert "model.py" in manifest.files
    steps_in_order = [step.model_name for step in repository.config("tiny").ensemble_scheduling.step]
    assert steps_in_order == ["tiny_model", "tiny_postprocess"]


def test_nothing_of_this_machine_is_in_the_repository(tmp_path: Path, options: ExportOptions) -> None:
    steps.run(pipeline(tmp_path), options)
    configs = "".join(p.read_text(encoding="utf-8") for p in options.repository.rglob("config.pbtxt"))
    assert 'backend: "onnxruntime"' in configs
    assert "/" not in configs


def test_an_unknown_python_backend_is_refused(tmp_path: Path, options: ExportOptions) -> None:
    with pytest.raises(ExportError, match="no Python backend clasify"):
        steps.run(pipeline(tmp_path, backend="clasify"), options)
    assert untouched(options)
