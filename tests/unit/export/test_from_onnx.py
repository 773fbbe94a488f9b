from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from conch.errors import ExportError
from conch.repository import Repository
from export import from_onnx, steps
from export.options import ExportOptions
from tests.fakes import tiny_onnx


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions("tiny", repository=tmp_path / "models", max_batch_size=8, trial=False)


def test_a_file_goes_in_as_it_is(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx")
    report = steps.run(from_onnx.load(path, options), options)
    assert (report.path / "model.onnx").read_bytes() == path.read_bytes()
    assert report.notes == ("the inputs compared were made up from the shapes; pass real ones with --samples",)


def test_external_data_comes_along(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx", external=True)
    source = from_onnx.load(path, options)
    report = steps.run(source, options)
    assert (report.path / "weights" / "w.bin").read_bytes() == (tmp_path / "weights" / "w.bin").read_bytes()
    manifest = Repository(options.repository).manifest("tiny", 1)
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "weights/w.bin"}
    assert set(manifest.source["external_data"]) == {"weights/w.bin"}


def test_int8_takes_external_data_in(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx", external=True)
    chosen = replace(options, precision="int8")
    report = steps.run(from_onnx.load(path, chosen), chosen)
    assert sorted(p.name for p in report.path.iterdir()) == ["manifest.json", "model.onnx"]


def test_missing_external_data_is_named(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx", external=True)
    (tmp_path / "weights" / "w.bin").unlink()
    with pytest.raises(ExportError, match="external data is missing") as raised:
        from_onnx.load(path, options)
    assert raised.value.where == tmp_path / "weights" / "w.bin"


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname"])
def test_external_data_outside_the_models_folder_is_refused(
    location: str, tmp_path: Path, options: ExportOptions
) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx", external=True)
    model = onnx.load(str(path), load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="outside its folder") as raised:
        from_onnx.load(path, options)
    assert raised.value.got == location


def test_an_ir_too_new_is_refused_before_anything_runs(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(ir_version=13), tmp_path / "my.onnx")
    with pytest.raises(ExportError, match=r"IR version is too new for Triton 24\.10") as raised:
        from_onnx.load(path, options)
    assert (raised.value.got, raised.value.expected) == ("IR version 13", "10 or lower (ONNX Runtime 1.19.2)")


def test_opset_converts_what_is_too_new(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(ir_version=12, opset=23), tmp_path / "my.onnx")
    chosen = replace(options, opset=20)
    report = steps.run(from_onnx.load(path, chosen), chosen)
    assert report.opset == 20
    assert report.ir_version is not None
    assert report.ir_version <= 10


def test_opset_keeps_external_data(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(opset=19), tmp_path / "my.onnx", external=True)
    chosen = replace(options, opset=20)
    assert steps.run(from_onnx.load(path, chosen), chosen).opset == 20


def test_a_fixed_batch_is_refused_and_without_batching_exported(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(batch=2), tmp_path / "my.onnx")
    with pytest.raises(ExportError, match="fixed the batch dimension") as raised:
        steps.run(from_onnx.load(path, options), options)
    assert "--max-batch-size 0" in str(raised.value.fix)
    alone = replace(options, max_batch_size=0)
    steps.run(from_onnx.load(path, alone), alone)
    config = Repository(options.repository).config("tiny")
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [2, 4]
    assert not config.HasField("dynamic_batching")


def test_variable_lengths_are_made_up_in_two_sizes(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.sums_lengths(), tmp_path / "my.onnx")
    source = from_onnx.load(path, options)
    assert [s["tokens"].shape for s in source.samples] == [(4, 4), (4, 7)]
    assert source.signature.inputs[0].dims == (-1,)


def test_real_samples_are_cast_and_checked(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx")
    samples = tmp_path / "samples.json"
    samples.write_text('{"x": [[1, 2, 3, 4]]}', encoding="utf-8")
    source = from_onnx.load(path, replace(options, samples=samples))
    assert source.notes == ()
    assert source.samples[0]["x"].dtype == np.float32


def test_samples_of_another_shape_are_refused(tmp_path: Path, options: ExportOptions) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my.onnx")
    samples = tmp_path / "samples.json"
    samples.write_text('{"x": [[1, 2]]}', encoding="utf-8")
    with pytest.raises(ExportError, match="wrong shape") as raised:
        from_onnx.load(path, replace(options, samples=samples))
    assert raised.value.got == "x FP32 [1, 2]"


def test_a_sequence_of_maps_is_no_tensor(tmp_path: Path, options: ExportOptions) -> None:
    model = tiny_onnx.linear()
    zipped = onnx.helper.make_tensor_sequence_value_info("maps", onnx.TensorProto.FLOAT, None)
    model.graph.output.append(zipped)
    path = tiny_onnx.save(model, tmp_path / "my.onnx")
    with pytest.raises(ExportError, match="output maps is no tensor") as raised:
        from_onnx.load(path, options)
    assert "zipmap" in str(raised.value.fix)
