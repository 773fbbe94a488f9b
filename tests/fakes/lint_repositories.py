"""Repositories for the linter's tests: each file written by hand, ONNX heads byte by byte: nothing heavy loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from conch.lint import Finding, LintOptions, check

FLOAT, INT64, STRING, FLOAT16, BFLOAT16 = 1, 7, 8, 10, 16

Dims = Sequence["int | str | None"]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    """A varint field on the wire."""
    return _varint(field << 3) + _varint(value)


def message(field: int, *content: bytes) -> bytes:
    """A length-delimited field on the wire."""
    body = b"".join(content)
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def tensor(field: int, name: str, elem_type: int, dims: Dims | None) -> bytes:
    """A ValueInfoProto: field 11 for an input, 12 for an output."""
    shape = b""
    if dims is not None:
        sizes = [
            number(1, d) if isinstance(d, int) else message(2, d.encode()) if isinstance(d, str) else b"" for d in dims
        ]
        shape = message(2, *(message(1, size) for size in sizes))
    return message(field, message(1, name.encode()), message(2, message(1, number(1, elem_type), shape)))


def weight(name: str, external: str | None = None) -> bytes:
    """An initializer in the graph; ``external`` names the file with its data."""
    if external is None:
        return message(5, message(8, name.encode()), message(9, b"\x00" * 64))
    location = message(13, message(1, b"location"), message(2, external.encode()))
    return message(5, message(8, name.encode()), location, number(14, 1))


def onnx(
    inputs: Mapping[str, tuple[int, Dims | None]] | None = None,
    outputs: Mapping[str, tuple[int, Dims | None]] | None = None,
    *,
    ir_version: int = 10,
    opset: int = 20,
    external: str | None = None,
) -> bytes:
    """The bytes of an ONNX file: x FP32 [batch, 4] -> y FP32 [batch, 3] unless told."""
    inputs = {"x": (FLOAT, ["batch", 4])} if inputs is None else inputs
    outputs = {"y": (FLOAT, ["batch", 3])} if outputs is None else outputs
    graph = message(
        7,
        weight("w", external),
        *(tensor(11, name, *spec) for name, spec in inputs.items()),
        *(tensor(12, name, *spec) for name, spec in outputs.items()),
    )
    return number(1, ir_version) + message(8, number(2, opset)) + graph


# Each is a model without a fault; NAME stands for its name.
ONNX_CONFIG = """\
name: "NAME"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
PYTHON_CONFIG = """\
name: "NAME"
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
PYTHON_MODEL = "import json\n\n\nclass TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def write(folder: Path, files: Mapping[str, bytes | str | None]) -> Path:
    """Write files below a folder; None is an empty folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    return folder


def onnx_model(
    root: Path, name: str = "m", config: str = ONNX_CONFIG, model: bytes | None = None, versions: Sequence[str] = ("1",)
) -> Path:
    """A model of the onnxruntime backend; returns its folder."""
    files: dict[str, bytes | str | None] = {"config.pbtxt": config.replace("NAME", name)}
    files |= {f"{v}/model.onnx": onnx() if model is None else model for v in versions}
    return write(root / name, files)


def python_model(
    root: Path,
    name: str = "m",
    config: str = PYTHON_CONFIG,
    model: str = PYTHON_MODEL,
    versions: Sequence[str] = ("1",),
) -> Path:
    """A model of the python backend, its bytecode guard in place; returns its folder."""
    files: dict[str, bytes | str | None] = {"config.pbtxt": config.replace("NAME", name)}
    for version in versions:
        files |= {f"{version}/model.py": model, f"{version}/__pycache__": ""}
    return write(root / name, files)


def found(paths: Path | Sequence[Path], **options: object) -> list[str]:
    """The rules of all findings, sorted, each as often as it was found."""
    return sorted(f.rule for f in findings(paths, **options))


def findings(paths: Path | Sequence[Path], **options: object) -> tuple[Finding, ...]:
    """All findings of a lint with these options."""
    return check(paths, LintOptions(**options)).findings  # type: ignore[arg-type]
