"""What goes into a model and what comes out: names, data types, shapes.

One table translates between the names that Triton, numpy, ONNX and torch have for a data type. Nothing here
imports onnx or torch, and nothing here knows about files or servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conch.errors import SignatureError, nearest

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DataType:
    """One data type under each of its names.

    ``wire`` is Triton's name in requests and metadata ("BYTES"), ``config`` the name in config.pbtxt ("TYPE_STRING"),
    ``numpy`` the type of the arrays users hold, ``onnx`` the number in onnx.TensorProto.DataType, ``torch`` the
    attribute of the torch module, or None where torch has no such type.

    Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto (DataType) and
    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (TensorProto.DataType).
    """

    wire: str
    config: str
    numpy: np.dtype[Any]
    onnx: int
    torch: str | None


def _row(wire: str, config: str, numpy: str, onnx: int, torch: str | None) -> DataType:
    return DataType(wire, config, np.dtype(numpy), onnx, torch)


DATA_TYPES: tuple[DataType, ...] = (
    _row("BOOL", "TYPE_BOOL", "bool", 9, "bool"),
    _row("UINT8", "TYPE_UINT8", "uint8", 2, "uint8"),
    _row("UINT16", "TYPE_UINT16", "uint16", 4, "uint16"),
    _row("UINT32", "TYPE_UINT32", "uint32", 12, "uint32"),
    _row("UINT64", "TYPE_UINT64", "uint64", 13, "uint64"),
    _row("INT8", "TYPE_INT8", "int8", 3, "int8"),
    _row("INT16", "TYPE_INT16", "int16", 5, "int16"),
    _row("INT32", "TYPE_INT32", "int32", 6, "int32"),
    _row("INT64", "TYPE_INT64", "int64", 7, "int64"),
    _row("FP16", "TYPE_FP16", "float16", 10, "float16"),
    _row("FP32", "TYPE_FP32", "float32", 1, "float32"),
    _row("FP64", "TYPE_FP64", "float64", 11, "float64"),
    # numpy has no strings of bytes with a length of their own, so they travel as object arrays.
    _row("BYTES", "TYPE_STRING", "object", 8, None),
    # numpy has no bfloat16: arrays are float32, and the client cuts the mantissa when it sends them.
    _row("BF16", "TYPE_BF16", "float32", 16, "bfloat16"),
)

_BY_WIRE = {t.wire: t for t in DATA_TYPES}
_BY_CONFIG = {t.config: t for t in DATA_TYPES}
_BY_ONNX = {t.onnx: t for t in DATA_TYPES}
_BY_NUMPY = {t.numpy: t for t in DATA_TYPES if t.wire != "BF16"}


def _lookup(table: Mapping[Any, DataType], key: object, family: str) -> DataType:
    found = table.get(key)
    if found is None:
        known = [str(k) for k in table]
        close = nearest(str(key), known)
        raise SignatureError(
            f"no Triton data type matches the {family} type {key}",
            got=key,
            expected="one of " + ", ".join(known),
            fix=f"did you mean {close}?" if close else "cast the tensor to one of these types",
        )
    return found


def data_type(wire: str) -> DataType:
    """The data type with this name in Triton's requests, e.g. "FP32". Raises: SignatureError."""
    return _lookup(_BY_WIRE, wire, "Triton")


def from_config_type(name: str) -> DataType:
    """The data type with this name in config.pbtxt, e.g. "TYPE_FP32". Raises: SignatureError."""
    return _lookup(_BY_CONFIG, name, "config.pbtxt")


def from_onnx_type(elem_type: int) -> DataType:
    """The data type with this number in onnx.TensorProto.DataType. Raises: SignatureError."""
    return _lookup(_BY_ONNX, elem_type, "ONNX")


def from_numpy_type(dtype: npt.DTypeLike) -> DataType:
    """The data type of a numpy array; strings and bytes of any width are BYTES. Raises: SignatureError."""
    dtype = np.dtype(dtype)
    if dtype.kind in "SUO":
        return _BY_WIRE["BYTES"]
    return _lookup(_BY_NUMPY, dtype.newbyteorder("="), "numpy")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    ``dims`` is the shape of one item, without the batch dimension; -1 stands for any length.
    ``datatype`` is Triton's wire name, e.g. "FP32" or "BYTES".
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        data_type(self.datatype)
        if not self.name:
            raise SignatureError("a tensor needs a name", got=self)
        if any(d < -1 or d == 0 for d in self.dims):
            raise SignatureError(
                f"tensor {self.name} has a dimension that is neither positive nor -1",
                got=list(self.dims),
                expected="sizes above 0, or -1 for any",
            )

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type of arrays for this tensor."""
        return data_type(self.datatype).numpy

    def shape(self, *, batched: bool) -> tuple[int, ...]:
        """The whole shape, with a leading -1 for the batch where there is one."""
        return (-1, *self.dims) if batched else self.dims

    def accepts(self, shape: Sequence[int], *, batched: bool) -> bool:
        """Whether an array of this shape fits, the batch dimension included."""
        due = self.shape(batched=batched)
        return len(shape) == len(due) and all(d in (-1, s) for d, s in zip(due, shape, strict=True))

    def describe(self, *, batched: bool) -> str:
        """What a person reads: ``text BYTES [batch, 1]``."""
        dims = ["any" if d == -1 else str(d) for d in self.dims]
        text = f"{self.name} {self.datatype} [{', '.join((['batch'] if batched else []) + dims)}]"
        return text + (" (optional)" if self.optional else "")


@dataclass(frozen=True)
class ModelSignature:
    """The inputs and outputs of a model; ``max_batch_size`` 0 means that tensors have no batch dimension."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0

    def __post_init__(self) -> None:
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [t.name for t in tensors]
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise SignatureError(f"two {kind}s share a name", got=", ".join(sorted(twice)))
        if self.max_batch_size < 0:
            raise SignatureError("max_batch_size is negative", got=self.max_batch_size, expected="0 or more")

    @property
    def batched(self) -> bool:
        """Whether tensors carry a leading batch dimension."""
        return self.max_batch_size > 0

    def input(self, name: str) -> TensorSpec:
        """The input of this name. Raises: SignatureError, with the nearest name."""
        return _named(self.inputs, name, "input", self.batched)

    def output(self, name: str) -> TensorSpec:
        """The output of this name. Raises: SignatureError, with the nearest name."""
        return _named(self.outputs, name, "output", self.batched)

    def check_inputs(self, arrays: Mapping[str, Array]) -> None:
        """Raise SignatureError unless the arrays are what the model takes: names, types, shapes, one batch size."""
        for name in arrays:
            self.input(name)
        missing = [t.name for t in self.inputs if t.name not in arrays and not t.optional]
        if missing:
            raise SignatureError(
                f"input {', '.join(missing)} is missing",
                got=list(arrays) or "no inputs",
                expected=describe_tensors(self.inputs, batched=self.batched),
            )
        for name, array in arrays.items():
            check_array(self.input(name), array, batched=self.batched)
        if self.batched:
            self._check_batch({name: a.shape[0] for name, a in arrays.items()})

    def _check_batch(self, sizes: Mapping[str, int]) -> None:
        if len(set(sizes.values())) > 1:
            raise SignatureError("inputs differ in batch size", got=dict(sizes), expected="the same first dimension")
        size = next(iter(sizes.values()), 0)
        if not 1 <= size <= self.max_batch_size:
            raise SignatureError(
                "the batch size is out of range",
                got=size,
                expected=f"1 to {self.max_batch_size}",
                fix="split the request: Triton refuses larger ones" if size else "send at least one item",
            )


def check_array(spec: TensorSpec, array: Array, *, batched: bool) -> None:
    """Raise SignatureError unless the array has the tensor's type and a shape that fits it."""
    got = from_numpy_type(array.dtype).wire
    due = spec.datatype
    same_type = got == due or (due == "BF16" and got == "FP32")
    if not same_type or not spec.accepts(array.shape, batched=batched):
        raise SignatureError(
            f"input {spec.name} has the wrong {'shape' if same_type else 'type'}",
            got=f"{spec.name} {got} {list(array.shape)}",
            expected=spec.describe(batched=batched),
        )


def describe_tensors(tensors: Iterable[TensorSpec], *, batched: bool) -> str:
    """Several tensors on one line, for messages."""
    return "; ".join(t.describe(batched=batched) for t in tensors) or "none"


def _named(tensors: Sequence[TensorSpec], name: str, kind: str, batched: bool) -> TensorSpec:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    close = nearest(name, [t.name for t in tensors])
    raise SignatureError(
        f"the model has no {kind} named {name}",
        got=name,
        expected=describe_tensors(tensors, batched=batched),
        fix=f"did you mean {close}?" if close else None,
    )
