import os
from pathlib import Path

import onnx as onnx_package
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.lint.onnx_header import OnnxHeaderError, OnnxTensor, read_header
from tests.fakes import tiny_onnx
from tests.fakes.lint_repositories import BFLOAT16, FLOAT, INT64, STRING, message, number, onnx, weight


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return path


def test_what_onnx_itself_wrote_is_read(tmp_path: Path) -> None:
    onnx_package.save(tiny_onnx.linear(ir_version=9, opset=17), tmp_path / "model.onnx")
    header = read_header(tmp_path / "model.onnx")
    assert (header.ir_version, header.opset()) == (9, 17)
    assert header.inputs == (OnnxTensor("x", FLOAT, ("batch", 4)),)
    assert header.outputs == (OnnxTensor("y", FLOAT, ("batch", 3)),)
    assert [i.name for i in header.initializers] == ["w"]


def test_the_fake_is_what_onnx_reads(tmp_path: Path) -> None:
    path = written(tmp_path, onnx({"a": (INT64, [1, "n", None])}, {"b": (STRING, None)}, ir_version=8, opset=13))
    model = onnx_package.load(path)
    header = read_header(path)
    assert (model.ir_version, model.opset_import[0].version) == (header.ir_version, header.opset()) == (8, 13)
    assert [i.name for i in model.graph.input] == [t.name for t in header.inputs] == ["a"]
    assert header.inputs[0].dims == (1, "n", None)
    assert header.outputs[0].dims is None


def test_weights_in_other_files_are_named(tmp_path: Path) -> None:
    content = onnx(external="weights/model.data") + message(7, weight("more"))
    (first,) = read_header(written(tmp_path, onnx(external="weights/model.data"))).initializers
    assert (first.name, first.external) == ("w", "weights/model.data")
    assert read_header(written(tmp_path, content)).initializers[-1].external is None


def test_inputs_that_have_a_default_are_told_apart(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, onnx({"x": (FLOAT, [1]), "w": (BFLOAT16, [2])})))
    assert [t.name for t in header.inputs] == ["x"]
    assert [t.name for t in header.overridable] == ["w"]


def test_what_is_no_tensor_says_so(tmp_path: Path) -> None:
    sequence = message(12, message(1, b"all"), message(2, message(4, message(1))))
    path = written(tmp_path, number(1, 8) + message(7, sequence))
    assert read_header(path).outputs == (OnnxTensor("all", 0, None, "sequence"),)


def test_weights_are_skipped_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"")
    size = 8 << 30  # 8 GiB that are not on the disk
    head = number(1, 10) + b"\x3a" + onnx_length(size + len(big_tail(size))) + big_tail(size)
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    assert [i.name for i in read_header(path).initializers] == ["big"]


def big_tail(size: int) -> bytes:
    """The head of an initializer whose raw data of this size follows."""
    name = message(8, b"big")
    tensor = name + b"\x4a" + onnx_length(size)
    return b"\x2a" + onnx_length(len(tensor) + size) + tensor


def onnx_length(value: int) -> bytes:
    return number(0, value)[1:]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of git LFS"),
        (b"\x00" * 100, "no ONNX model"),
        (b"PK\x03\x04 a zip", "no ONNX model"),
        (b"\xff" * 100, "no ONNX model"),
        (onnx()[:-3], "no ONNX model"),
        (number(1, 8), "no ONNX model"),
        (message(7, message(11, message(1, b"\xff\xfe"))), "no ONNX model"),
    ],
)
def test_what_is_no_onnx_model_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    with pytest.raises(OnnxHeaderError, match=what):
        read_header(written(tmp_path, content))


def test_a_pipe_and_a_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OnnxHeaderError, match="no file"):
        read_header(tmp_path / "pipe")
    with pytest.raises(OnnxHeaderError):
        read_header(tmp_path)


@given(st.binary(max_size=200) | st.binary(max_size=20).map(lambda tail: onnx()[: len(tail) * 5] + tail))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        header = read_header(path)
    except OnnxHeaderError:
        return
    assert header.inputs is not None
