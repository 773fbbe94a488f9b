"""What an ONNX file says of itself, read without onnx and without its weights.

A reader of protobuf's wire format over a memory map: it goes through the top of ModelProto and GraphProto and skips
what it does not need by length, so a file of gigabytes costs as much as its names do.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ConchError

# Wire types: how the value after a tag is laid out.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


class OnnxHeaderError(ConchError):
    """The file is no ONNX model that can be read."""


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output of the graph.

    ``elem_type`` is the number in TensorProto.DataType, 0 for what is no tensor. ``dims`` has an int for a fixed size,
    a str for a named one, None for one that is not known; ``dims`` None means that not even the rank is known.
    ``kind`` is "tensor", "sequence", "map", "optional" or "sparse_tensor".
    """

    name: str
    elem_type: int
    dims: tuple[int | str | None, ...] | None
    kind: str = "tensor"


@dataclass(frozen=True)
class Initializer:
    """A weight: its name, and where its data lies when that is another file (relative to the ONNX file)."""

    name: str
    external: str | None = None


@dataclass(frozen=True)
class OnnxHeader:
    """The top of an ONNX file. ``inputs`` are those that a caller must give; ``overridable`` those that have a default.

    ``opsets`` has (domain, version), "" being ONNX's own domain. ``initializers`` are the main graph's.
    """

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    initializers: tuple[Initializer, ...]
    overridable: tuple[OnnxTensor, ...] = ()
    producer: str = ""

    def opset(self, domain: str = "") -> int | None:
        """The opset of a domain; ONNX's own is named "" or "ai.onnx"."""
        names = {"", "ai.onnx"} if domain in ("", "ai.onnx") else {domain}
        return max((version for name, version in self.opsets if name in names), default=None)


def read_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file. Raises: OnnxHeaderError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name must not block us
    except OSError as error:
        raise OnnxHeaderError("the ONNX file cannot be opened", where=path, got=error.strerror) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OnnxHeaderError("the ONNX file is no file", where=path)
        if status.st_size == 0:
            raise OnnxHeaderError("the ONNX file is empty", where=path, got="0 bytes")
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            return _parse(data, path)
    except (OSError, ValueError) as error:
        raise OnnxHeaderError("the ONNX file cannot be read", where=path, got=error) from error
    finally:
        os.close(descriptor)


def _parse(data: mmap.mmap, path: Path) -> OnnxHeader:
    if data[:24].startswith(b"version https://git-lfs"):
        raise OnnxHeaderError(
            "the ONNX file is a pointer of git LFS, not the model", where=path, fix="fetch it with `git lfs pull`"
        )
    try:
        header = _model(data)
    except (_Garbled, UnicodeDecodeError) as error:
        raise OnnxHeaderError("the file is no ONNX model", where=path, got=error) from error
    if header is None:
        raise OnnxHeaderError("the file is no ONNX model", where=path, got="no graph in it")
    return header


class _Garbled(Exception):
    """Bytes that do not follow the wire format."""


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at an offset, and the offset behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Garbled(f"a number is cut off or too long at byte {at}")


# A field's number, its wire type, and its value: an int, or the (start, end) of its bytes.
_Field = tuple[int, int, Any]


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two offsets."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire == _BYTES:
            length, at = _varint(data, at, end)
            value, at = (at, at + length), at + length
        elif wire in (_FIXED64, _FIXED32):
            value, at = None, at + (8 if wire == _FIXED64 else 4)
        else:
            raise _Garbled(f"wire type {wire} at byte {at}")
        if number == 0 or at > end:
            raise _Garbled(f"field {number} reaches past its message at byte {at}")
        yield number, wire, value


def _messages(data: mmap.mmap, span: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """The length-delimited fields of the message in a span."""
    for number, wire, value in _fields(data, *span):
        if wire == _BYTES:
            yield number, value


def _text(data: mmap.mmap, span: tuple[int, int]) -> str:
    return data[span[0] : span[1]].decode("utf-8")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _model(data: mmap.mmap) -> OnnxHeader | None:
    ir_version, producer = 0, ""
    opsets: list[tuple[str, int]] = []
    graph: tuple[int, int] | None = None
    for number, wire, value in _fields(data, 0, len(data)):
        if number == 1 and wire == _VARINT:
            ir_version = _signed(value)
        elif number == 2 and wire == _BYTES:
            producer = _text(data, value)
        elif number == 7 and wire == _BYTES:
            graph = value
        elif number == 8 and wire == _BYTES:
            opsets.append(_opset(data, value))
    if graph is None:
        return None
    inputs: list[OnnxTensor] = []
    outputs: list[OnnxTensor] = []
    initializers: list[Initializer] = []
    for number, span in _messages(data, graph):
        if number == 5:
            initializers.append(_initializer(data, span))
        elif number == 11:
            inputs.append(_value_info(data, span))
        elif number == 12:
            outputs.append(_value_info(data, span))
        elif number == 15:  # a sparse initializer: its values tensor carries the name
            initializers += [_initializer(data, value) for n, value in _messages(data, span) if n == 1]
    weights = {i.name for i in initializers}  # until IR 4, all weights were listed among the inputs
    given = tuple(t for t in inputs if t.name not in weights)
    return OnnxHeader(
        ir_version=ir_version,
        opsets=tuple(opsets),
        inputs=given,
        outputs=tuple(outputs),
        initializers=tuple(initializers),
        overridable=tuple(t for t in inputs if t.name in weights),
        producer=producer,
    )


def _opset(data: mmap.mmap, span: tuple[int, int]) -> tuple[str, int]:
    domain, version = "", 0
    for number, wire, value in _fields(data, *span):
        if number == 1 and wire == _BYTES:
            domain = _text(data, value)
        elif number == 2 and wire == _VARINT:
            version = _signed(value)
    return domain, version


def _initializer(data: mmap.mmap, span: tuple[int, int]) -> Initializer:
    name, external, location = "", False, None
    for number, wire, value in _fields(data, *span):
        if number == 8 and wire == _BYTES:
            name = _text(data, value)
        elif number == 14 and wire == _VARINT:
            external = value == _EXTERNAL
        elif number == 13 and wire == _BYTES:
            entry = {n: _text(data, s) for n, s in _messages(data, value) if n in (1, 2)}
            if entry.get(1) == "location":
                location = entry.get(2, "")
    return Initializer(name, (location or "") if external else None)


_KINDS = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse_tensor", 9: "optional"}


def _value_info(data: mmap.mmap, span: tuple[int, int]) -> OnnxTensor:
    name, kind, elem_type = "", "tensor", 0
    dims: tuple[int | str | None, ...] | None = None
    for number, value in _messages(data, span):
        if number == 1:
            name = _text(data, value)
        elif number == 2:
            for type_number, inner in _messages(data, value):
                kind = _KINDS.get(type_number, kind)
                if kind in ("tensor", "sparse_tensor"):
                    elem_type, dims = _tensor_type(data, inner)
    return OnnxTensor(name, elem_type, dims, kind)


def _tensor_type(data: mmap.mmap, span: tuple[int, int]) -> tuple[int, tuple[int | str | None, ...] | None]:
    elem_type = 0
    dims: tuple[int | str | None, ...] | None = None
    for number, wire, value in _fields(data, *span):
        if number == 1 and wire == _VARINT:
            elem_type = value
        elif number == 2 and wire == _BYTES:
            dims = tuple(_dim(data, s) for n, s in _messages(data, value) if n == 1)
    return elem_type, dims


def _dim(data: mmap.mmap, span: tuple[int, int]) -> int | str | None:
    for number, wire, value in _fields(data, *span):
        if number == 1 and wire == _VARINT:
            return _signed(value)
        if number == 2 and wire == _BYTES:
            return _text(data, value) or None
    return None
