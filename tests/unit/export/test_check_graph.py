from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from conch.errors import ExportError
from conch.releases import release
from conch.tensor_spec import ModelSignature, TensorSpec
from export import check_graph
from tests.fakes import tiny_onnx

TARGET = release("24.10")


def check(model: onnx.ModelProto, folder: Path, signature: ModelSignature | None = None) -> check_graph.Checked:
    path = tiny_onnx.save(model, folder / "model.onnx")
    source = tiny_onnx.source(folder)
    return check_graph.check(path, replace(source, signature=signature or source.signature), TARGET)


def test_a_good_graph_tells_its_versions(tmp_path: Path) -> None:
    checked = check(tiny_onnx.linear(), tmp_path)
    assert (checked.opset, checked.ir_version, checked.cpu_only) == (20, 10, False)
    assert checked.run({"x": np.ones((5, 4), np.float32)})["y"].shape == (5, 3)


def test_a_fixed_batch_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fixed the batch dimension") as raised:
        check(tiny_onnx.linear(batch=1), tmp_path)
    assert raised.value.got == "input x [1, 4]"


def test_a_fixed_batch_is_what_a_model_without_batching_may_have(tmp_path: Path) -> None:
    signature = ModelSignature((TensorSpec("x", "FP32", (2, 4)),), (TensorSpec("y", "FP32", (2, 3)),), 0)
    assert check(tiny_onnx.linear(batch=2), tmp_path, signature).opset == 20


def test_a_batch_that_became_a_constant_inside_is_found_by_running(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not run with a batch of 1"):
        check(tiny_onnx.frozen_inside(), tmp_path)


def test_a_colliding_output_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="output name embedding breaks the graph") as raised:
        check(tiny_onnx.colliding(), tmp_path)
    assert "Duplicate definition of name (embedding)" in str(raised.value.got)
    assert raised.value.fix == "choose another name for that output"


@pytest.mark.parametrize(
    ("model", "got", "limit"),
    [
        (tiny_onnx.linear(ir_version=13), "IR version 13", "10 or lower (ONNX Runtime 1.19.2)"),
        (tiny_onnx.linear(opset=22), "opset 22", "21 or lower (ONNX Runtime 1.19.2)"),
    ],
)
def test_what_the_target_cannot_load_is_refused(model: onnx.ModelProto, got: str, limit: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"too new for Triton 24\.10") as raised:
        check(model, tmp_path)
    assert (raised.value.got, raised.value.expected) == (got, limit)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (TensorSpec("z", "FP32", (3,)), "no output named z"),
        (TensorSpec("y", "INT64", (3,)), "another type"),
        (TensorSpec("y", "FP32", (3, 1)), "another rank"),
        (TensorSpec("y", "FP32", (5,)), "fixed size"),
    ],
)
def test_the_graph_must_be_what_the_signature_says(output: TensorSpec, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        check(tiny_onnx.linear(), tmp_path, replace(tiny_onnx.SIGNATURE, outputs=(output,)))


def test_strings_keep_a_model_off_the_gpu(tmp_path: Path) -> None:
    path = tiny_onnx.save(tiny_onnx.upper_case(), tmp_path / "model.onnx")
    signature = ModelSignature((TensorSpec("x", "BYTES", (1,)),), (TensorSpec("y", "BYTES", (1,)),), 0)
    checked = check_graph.check_onnx(path, signature, TARGET)
    assert checked.cpu_only
    assert checked.run({"x": np.array([b"ja"], dtype=object)})["y"].tolist() == ["JA"]


def test_a_tensor_of_one_number_an_item_is_refused() -> None:
    with pytest.raises(ExportError, match="no dimension beside the batch") as raised:
        check_graph.check_ranks(ModelSignature((TensorSpec("x", "FP32", ()),), (), 8))
    assert raised.value.expected == "x [batch, 1]"


def test_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model at all")
    with pytest.raises(ExportError, match="no ONNX file"):
        check_graph.read_onnx(tmp_path / "model.onnx")


LENGTHS = ModelSignature(
    (TensorSpec("ids", "INT64", (-1,)), TensorSpec("mask", "INT64", (-1,))), (TensorSpec("y", "FP32", (1,)),), 8
)


def shapes(probes: list[dict[str, np.ndarray]]) -> list[tuple[int, ...]]:
    assert all(probe["ids"].shape == probe["mask"].shape for probe in probes)
    return [probe["ids"].shape for probe in probes]


def sample(*shape: int) -> dict[str, np.ndarray]:
    return {"ids": np.ones(shape, np.int64), "mask": np.ones(shape, np.int64)}


@pytest.mark.parametrize(
    ("samples", "due"),
    [
        ([sample(2, 6)], [(1, 6), (3, 6), (3, 3)]),
        ([sample(1, 1)], [(1, 1), (3, 1), (3, 2)]),
        ([sample(1, 6), sample(1, 9)], [(1, 6), (3, 6), (3, 9)]),
    ],
)
def test_probes_have_two_batches_and_two_lengths(samples: list, due: list) -> None:
    assert shapes(check_graph.probes(samples, LENGTHS)) == due


def test_probes_keep_to_a_small_max_batch_size() -> None:
    assert shapes(check_graph.probes([sample(1, 4)], replace(LENGTHS, max_batch_size=1))) == [(1, 4), (1, 2)]


def test_no_samples_no_check() -> None:
    with pytest.raises(ExportError, match="no samples"):
        check_graph.probes([], LENGTHS)
