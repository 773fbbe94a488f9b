"""`--pipeline single`: what is written, run by a fake of Triton's Python backend, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf.json_format import MessageToDict

from conch.errors import ExportError
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from export import steps
from export.cli import export
from export.options import ExportOptions
from export.source import PipelineParts, PythonPart, Source
from tests.fakes import tiny_onnx
from tests.fakes import triton_python_backend_utils as fake

X = TensorSpec("x", "FP32", (4,))
LABELS = b"a\nb\nc\n"


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions("tiny", repository=tmp_path / "models", max_batch_size=8, trial=False, pipeline="single")


def classify(role: str, logits: str, *outputs: TensorSpec, assets: dict[str, bytes], **more: Any) -> PythonPart:
    return PythonPart(
        role=role,
        backend="classify",
        signature=ModelSignature((TensorSpec("logits", "FP32", (3,)),), outputs, 8),
        parameters={"activation": "softmax"},
        assets=assets,
        input_map={"logits": logits},
        **more,
    )


def source(tmp_path: Path, **more: Any) -> Source:
    """x -> `linear` -> y -> classify -> label and scores."""
    outputs = (TensorSpec("label", "BYTES", (1,)), TensorSpec("scores", "FP32", (3,)))
    parts = PipelineParts(
        inputs=(X,),
        outputs=("label", "scores"),
        requests=[{"x": np.ones((1, 4), np.float32)}],
        postprocess=classify("postprocess", "y", *outputs, assets={"labels.txt": LABELS}, packages=("numpy==1.26.4",)),
    )
    return replace(tiny_onnx.source(tmp_path), pipeline=parts, parameters={"intra_op_thread_count": "1"}, **more)


def test_one_model_is_written_with_all_in_it(tmp_path: Path, options: ExportOptions) -> None:
    report = steps.run(source(tmp_path), options)
    assert list(report.models) == ["tiny"]
    assert [folder.name for folder in options.repository.iterdir() if folder.is_dir()] == ["tiny"]
    names = {path.name for path in report.path.iterdir()}
    code = {"model.py", "whole_pipeline_part.py", "classify_part.py", "label_scores.py", "pipeline_part.py"}
    assert names >= code | {"model.onnx", "labels.txt", "pipeline.json", "manifest.json", "__pycache__"}
    assert not any(path.is_symlink() for path in report.path.iterdir())
    repository = Repository(options.repository)
    config = repository.config("tiny")
    assert config.backend == "python"
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "activation": "softmax",
        "intra_op_thread_count": "1",
        "merge_rows": "true",
    }
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    manifest = repository.manifest("tiny", 1)
    assert manifest is not None
    assert manifest.packages == ("numpy==1.26.4", "onnxruntime>=1.18", "pyyaml>=6")
    assert set(manifest.files) >= code | {"model.onnx", "labels.txt", "pipeline.json"}
    assert manifest.settings["pipeline"] == "single"
    assert (manifest.opset, manifest.ir_version) == (20, 10)
    assert [row.output for row in manifest.parity] == ["y"]


def test_what_is_written_answers(tmp_path: Path, options: ExportOptions) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("others: unsure\nthreshold: 1.0\n", encoding="utf-8")
    report = steps.run(source(tmp_path), replace(options, rules=rules))
    config = MessageToDict(Repository(options.repository).config("tiny"), preserving_proto_field_name=True)
    # Triton's JSON has numbers where protobuf's has strings.
    for tensor in (*config["input"], *config["output"]):
        tensor["dims"] = [int(size) for size in tensor["dims"]]
    x = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
    with fake.load(report.path, json.loads(json.dumps(config))) as model:
        answer = model.infer(x=x)
    powers = np.exp(x @ tiny_onnx.WEIGHTS)
    np.testing.assert_allclose(answer["scores"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert answer["label"].tolist() == [[b"unsure"]] * 3


def test_a_model_without_parts_is_written_as_ever(tmp_path: Path, options: ExportOptions) -> None:
    steps.run(tiny_onnx.source(tmp_path), options)
    assert Repository(options.repository).config("tiny").backend == "onnxruntime"


def test_parameters_of_one_name_get_their_roles_in_front(tmp_path: Path, options: ExportOptions) -> None:
    made = source(tmp_path, signature=replace(tiny_onnx.SIGNATURE, inputs=(X,)))
    assert made.pipeline is not None
    first = PythonPart(
        role="preprocess",
        backend="pool_embeddings",
        signature=ModelSignature((TensorSpec("raw", "FP32", (4,)),), (X,), 8),
        parameters={"activation": "none", "pooling": "max"},
    )
    parts = replace(made.pipeline, inputs=(TensorSpec("raw", "FP32", (4,)),), preprocess=first)
    steps.run(replace(made, pipeline=parts), options)
    parameters = Repository(options.repository).config("tiny").parameters
    assert sorted(parameters) == [
        "intra_op_thread_count",
        "merge_rows",
        "pooling",
        "postprocess.activation",
        "preprocess.activation",
    ]


def test_two_files_of_one_name_are_refused(tmp_path: Path, options: ExportOptions) -> None:
    with pytest.raises(ExportError, match=r"two parts of the version bring a file labels\.txt"):
        steps.run(source(tmp_path, files={"labels.txt": b"x\n"}), options)
    assert not (options.repository / "tiny").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "torchscript"}, "a pipeline of one model runs its graph in ONNX Runtime"),
        ({"pipeline": "double"}, "a value that export does not know"),
    ],
)
def test_what_cannot_be_single_is_refused(change: dict[str, str], message: str, options: ExportOptions) -> None:
    with pytest.raises(ExportError, match=message) as raised:
        replace(options, **change).check()
    assert f"--pipeline {change.get('pipeline', 'single')}" in str(raised.value.got)


def test_all_samples_cannot_have_one_name() -> None:
    result = CliRunner().invoke(export, ["sample", "all", "--name", "one"])
    assert result.exit_code == 2
    assert "--name is for one sample" in result.output


@pytest.mark.parametrize(
    ("precision", "there", "form"),
    [
        ("fp32", "", "ensemble"),
        ("int8", "", "single"),
        ("int8", 'platform: "ensemble"', "ensemble"),
        ("fp32", 'backend: "python"', "single"),
    ],
    ids=["for a GPU as well", "for CPUs", "an ensemble is there", "a single model is there"],
)
def test_the_form_is_that_of_the_repository_or_of_the_precision(
    tmp_path: Path, precision: str, there: str, form: str
) -> None:
    if there:
        (tmp_path / "tiny" / "1").mkdir(parents=True)
        (tmp_path / "tiny" / "config.pbtxt").write_text(f'name: "tiny"\n{there}\n')
    options = ExportOptions("tiny", repository=tmp_path, precision=precision)
    assert options.with_form(Repository(tmp_path)).pipeline == form


def test_a_form_that_was_asked_for_stays(tmp_path: Path) -> None:
    options = ExportOptions("tiny", repository=tmp_path, precision="int8", pipeline="ensemble")
    assert options.with_form(Repository(tmp_path)).pipeline == "ensemble"
