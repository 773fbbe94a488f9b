"""JSON values of one tensor, a row each, as its array; strictly, and quickly where nothing is wrong.

A row's value is nested lists of the tensor's dims; where every dim is 1, a plain value may stand for them. Numbers are
numbers (whole ones for integer types, in their range), booleans are booleans, BYTES are text. `image` is a file's
bytes in base64; elsewhere {"base64": "..."} stands for bytes that are no text. Nothing is converted otherwise, since a
value of another type is a mistake of the caller's.

Types and lengths are checked for all values at once; only when something is wrong is it looked for one by one.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from conch.tensor_spec import Array, TensorSpec
from gateway.errors import GatewayError
from gateway.rest.json_body import kind_of

NUMBERS = frozenset({int, float})


@dataclass(frozen=True)
class Column:
    """One tensor's values, one a row. ``row_numbers`` are the rows' places in the request, None for a single row."""

    spec: TensorSpec
    values: Sequence[Any]
    row_numbers: Sequence[int] | None = None

    def place(self, row: int, path: str = "") -> str:
        """Where a value stands in the body: ``features[2]``, or ``rows[3].features[2]``."""
        prefix = "" if self.row_numbers is None else f"rows[{self.row_numbers[row]}]."
        return f"{prefix}{self.spec.name}{path}"

    def refused(self, what: str, place: str, got: str, fix: str | None = None) -> GatewayError:
        """A value that the tensor does not take."""
        return GatewayError(f"{place} {what}", param=place, got=got, expected=describe(self.spec), fix=fix)


def is_file(spec: TensorSpec) -> bool:
    """Whether a tensor holds encoded files, by the name that public tensors have."""
    return spec.datatype == "BYTES" and spec.name == "image"


def describe(spec: TensorSpec) -> str:
    """What a value has to be, for messages: ``a number``, ``a list of 30 whole numbers from 0 to 255``."""
    one, many = "text", "texts"
    kind = spec.numpy.kind
    if is_file(spec):
        one, many = "an image file in base64", "image files in base64"
    elif kind == "b":
        one, many = "true or false", "booleans"
    elif kind in "iu":
        limits = np.iinfo(spec.numpy)
        one, many = (f"{name} from {limits.min} to {limits.max}" for name in ("a whole number", "whole numbers"))
    elif kind == "f":
        one, many = "a number", "numbers"
    if all(d == 1 for d in spec.dims):
        return one
    sizes = " of ".join("a list" if d == -1 else f"a list of {d}" for d in spec.dims)
    return f"{sizes} {many}" if spec.dims[-1] != -1 else f"{sizes} of {many}"


def to_array(column: Column) -> Array:
    """The values as an array [rows, *dims]. Raises: GatewayError 400, with the place of what is wrong."""
    spec = column.spec
    shape, leaves = _flatten(column)
    array = _bytes_array(column, leaves) if spec.datatype == "BYTES" else _number_array(column, leaves)
    return array.reshape(shape)


def _flatten(column: Column) -> tuple[tuple[int, ...], list[Any]]:
    """The shape, and the values without their lists."""
    dims = column.spec.dims
    level = list(column.values)
    if all(d == 1 for d in dims):
        if list in set(map(type, level)):
            level = [_only(column, row, value) for row, value in enumerate(level)]
        return (len(level), *dims), level
    shape = [len(level)]
    for size in dims:
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1 or 0 in lengths or size not in (-1, *lengths):
            raise _wrong_shape(column)
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def _only(column: Column, row: int, value: Any) -> Any:
    """The value in lists of one."""
    for _ in column.spec.dims:
        if isinstance(value, list):
            if len(value) != 1:
                raise column.refused("has the wrong shape", column.place(row), f"a list of {len(value)}")
            value = value[0]
    return value


def _wrong_shape(column: Column) -> GatewayError:
    """The first place where lists are missing, too many, too short or of different lengths."""

    def first(value: Any, dims: Sequence[int], path: str) -> tuple[str, str] | None:
        if not dims:
            return None
        if not isinstance(value, list):
            return path, kind_of(value)
        if not value or dims[0] not in (-1, len(value)):
            return path, f"a list of {len(value)}" if value else "an empty list"
        found = (first(item, dims[1:], f"{path}[{index}]") for index, item in enumerate(value))
        return next((fault for fault in found if fault), None)

    for row, value in enumerate(column.values):
        fault = first(value, column.spec.dims, "")
        if fault is not None:
            return column.refused("has the wrong shape", column.place(row, fault[0]), fault[1])
    fix = "send lists of one length" if len(column.values) == 1 else "send them as requests of their own"
    return column.refused("has lists of different lengths", column.place(0), "lists of different lengths", fix)


def _number_array(column: Column, leaves: list[Any]) -> Array:
    dtype = column.spec.numpy
    kinds = set(map(type, leaves))
    if dtype.kind == "b":
        if kinds != {bool}:
            raise _wrong_leaf(column, lambda leaf: type(leaf) is bool)
        return np.array(leaves, dtype)
    if not kinds <= NUMBERS:
        raise _wrong_leaf(column, lambda leaf: type(leaf) in NUMBERS)
    if dtype.kind == "f":
        return _float_array(column, leaves)
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if float in kinds and not all(float(leaf).is_integer() for leaf in leaves if type(leaf) is float):
        raise _wrong_leaf(column, lambda leaf: type(leaf) is int or leaf.is_integer())
    if min(leaves) < low or max(leaves) > high:
        raise _wrong_leaf(column, lambda leaf: low <= leaf <= high)
    return np.array([int(leaf) for leaf in leaves] if float in kinds else leaves, dtype)


def _float_array(column: Column, leaves: list[Any]) -> Array:
    dtype = column.spec.numpy
    try:
        with np.errstate(over="ignore"):
            array = np.array(leaves, dtype)
        if np.isfinite(array).all():
            return array
    except OverflowError:  # a whole number beyond FP64
        pass
    limit = float(np.finfo(dtype).max)
    what = f"is out of the range of {column.spec.datatype}"
    raise _wrong_leaf(column, lambda leaf: -limit <= leaf <= limit, what)


def _bytes_array(column: Column, leaves: list[Any]) -> Array:
    """An object array of bytes, flat. numpy's own string types would cut trailing zero bytes."""
    array = np.empty(len(leaves), dtype=object)
    convert = _file_bytes if is_file(column.spec) else _text_bytes
    for index, leaf in enumerate(leaves):
        data = leaf if type(leaf) is bytes else convert(leaf)
        if data is None:
            raise _wrong_leaf(column, lambda other: type(other) is bytes or convert(other) is not None)
        array[index] = data
    return array


def _text_bytes(leaf: Any) -> bytes | None:
    """UTF-8, or the bytes of {"base64": text}; None for what is neither."""
    if type(leaf) is str:
        return leaf.encode()
    if type(leaf) is dict and leaf.keys() == {"base64"}:
        return _decoded(leaf["base64"])
    return None


def _file_bytes(leaf: Any) -> bytes | None:
    """A file's bytes, from base64 or a data URL with it; None for what is none."""
    if type(leaf) is str and leaf.startswith("data:"):
        leaf = leaf.partition(";base64,")[2]
    return _decoded(leaf) or None


def _decoded(text: Any) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if type(text) is str else None
    except (binascii.Error, ValueError):
        return None


def _wrong_leaf(column: Column, fits: Callable[[Any], bool], what: str = "has the wrong type") -> GatewayError:
    """The first value that does not fit, with its place."""
    for row, value in enumerate(column.values):
        for path, leaf in _leaves(value, len(column.spec.dims)):
            if not fits(leaf):
                fix = None
                if leaf is None:
                    fix = "fill missing values first"
                elif type(leaf) is str and is_file(column.spec):
                    fix = "send the file itself as multipart/form-data, or its bytes in base64"
                got = "a number too large" if isinstance(leaf, float) and math.isinf(leaf) else kind_of(leaf)
                return column.refused(what, column.place(row, path), got, fix)
    return column.refused(what, column.place(0), "a value of another type")


def _leaves(value: Any, depth: int, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in at most ``depth`` lists, with their paths."""
    if depth and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, depth - 1, f"{path}[{index}]")
    else:
        yield path, value
