"""What users hold, as the array that one tensor takes: lists, scalars, text, bytes, numpy arrays, pandas Series.

Pure. Two rules, and no others:

Types: a value is converted where nothing is lost, and refused where something would be. Integers and booleans go into
any number type whose range holds them; floats go into float types (and into integer types when every one of them is
whole); ``str`` becomes UTF-8 bytes; numbers never become text, and text never becomes numbers.

Shapes, with D the tensor's dims as the model declares them, and B = [batch] when the model batches, [] when not:
1. as many dimensions as B + D: taken as it is.
2. a batching model, D = [1], and a flat value: one item each. ``["a", "b"]`` for ``text`` [1] becomes [2, 1].
3. a batching model, as many dimensions as D: one item, a batch of 1. ``[1, 2, 3]`` for [-1] becomes [1, 3].
4. a single value where every dimension of D is 1 or variable: all dimensions 1. ``"a"`` becomes [1, 1].
Anything else is refused. Rule 2 comes before rule 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from conch.errors import InvalidInput
from conch.tensor_spec import Array, TensorSpec

_TEXT = (str, bytes, bytearray, memoryview)


def to_array(spec: TensorSpec, value: Any, *, batched: bool) -> Array:
    """The contiguous array that a user's value stands for, of the tensor's type, its shape by the rules above.

    Raises: InvalidInput, with what came and what the tensor takes. Sizes of dimensions are not checked here.
    """
    array = _as_bytes(spec, value) if spec.datatype == "BYTES" else _as_numbers(spec, value, batched)
    return np.asarray(_shaped(spec, array, batched=batched), order="C")


def text(array: npt.ArrayLike) -> Array:
    """A BYTES array decoded: an object array of ``str`` of the same shape. Bytes that are not UTF-8 are replaced."""
    source = np.asarray(array, dtype=object)
    decoded = np.empty(source.shape, dtype=object)
    for index, item in np.ndenumerate(source):
        decoded[index] = item.decode("utf-8", errors="replace") if isinstance(item, bytes) else str(item)
    return decoded


def _shaped(spec: TensorSpec, array: Array, *, batched: bool) -> Array:
    rank = len(spec.dims) + batched
    if array.ndim == rank:
        return array
    if batched and spec.dims == (1,) and array.ndim == 1:
        return array.reshape(-1, 1)
    if batched and array.ndim == len(spec.dims) and array.ndim > 0:
        return array[np.newaxis]
    if array.ndim == 0 and all(d in (1, -1) for d in spec.dims):
        return array.reshape((1,) * rank)
    raise InvalidInput(
        f"input {spec.name} has the wrong number of dimensions",
        got=f"{spec.name} {list(array.shape)}",
        expected=spec.describe(batched=batched),
    )


def _as_bytes(spec: TensorSpec, value: Any) -> Array:
    """An object array of bytes. numpy is kept from building it: its own string types cut trailing zero bytes."""
    nested = _plain(value)
    array = np.empty(_shape_of(spec, nested), dtype=object)
    flat = array.reshape(-1)
    for index, item in enumerate(_leaves(nested)):
        flat[index] = _one_bytes(spec, item)
    return array


def _one_bytes(spec: TensorSpec, item: Any) -> bytes:
    if isinstance(item, str):
        try:
            return item.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"input {spec.name} holds text that is not valid Unicode", got=error, expected="text, or bytes"
            ) from error
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    missing = item is None or (isinstance(item, float) and item != item)
    raise InvalidInput(
        f"input {spec.name} takes text or bytes",
        got="a missing value" if missing else f"{type(item).__name__} {item!r:.60}",
        expected=f"{spec.name} {spec.datatype}: str or bytes",
        fix="drop or fill missing values" if missing else "convert with str() first",
    )


def _as_numbers(spec: TensorSpec, value: Any, batched: bool) -> Array:
    plain = _plain(value)
    if not isinstance(plain, np.ndarray):
        _shape_of(spec, plain)  # says where a list is ragged; numpy's own message does not
    try:
        array = np.asarray(plain)
        if array.dtype == object:
            array = np.array(array.tolist())
    except (ValueError, TypeError, OverflowError) as error:
        raise _wrong_type(spec, type(value).__name__, batched, str(error)) from error
    if array.size == 0 and not isinstance(plain, np.ndarray):
        array = array.astype(spec.numpy)  # an empty list has no type of its own
    # ml_dtypes' bfloat16 is of kind V; every value of it is a float32.
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        got = "a missing value" if array.dtype == object else f"values of type {array.dtype}"
        raise _wrong_type(spec, got, batched)
    return _cast(spec, array, batched)


def _cast(spec: TensorSpec, array: Array, batched: bool) -> Array:
    """Convert numbers to the tensor's type, if none is changed beyond rounding of a float."""
    due = spec.numpy
    if array.dtype == due:
        return array
    if due.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(due)
        changed = np.isinf(cast) & np.isfinite(array)
    else:
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise _wrong_type(spec, "NaN or infinity", batched)
        low, high = (0, 1) if due.kind == "b" else (np.iinfo(due).min, np.iinfo(due).max)
        # Compared as Python integers, as 2**63 and an int64 have no common exact numpy type.
        outside = array.size and not (low <= int(array.min()) and int(array.max()) <= high)
        if outside:
            got = f"{array.dtype} values from {array.min()} to {array.max()}"
            raise _wrong_type(spec, got, batched, f"{spec.datatype} holds {low} to {high}")
        cast = array.astype(due)
        changed = cast.astype(array.dtype) != array
    if np.any(changed):
        fix = "round them first, if that is meant" if due.kind in "iub" else None
        example = array[changed].flat[0]
        raise _wrong_type(spec, f"{array.dtype} {example}, which {spec.datatype} cannot hold", batched, fix)
    return cast


def _wrong_type(spec: TensorSpec, got: object, batched: bool, fix: str | None = None) -> InvalidInput:
    return InvalidInput(
        f"input {spec.name} has the wrong type",
        got=f"{spec.name} {got}" if not str(got).startswith("a ") else got,
        expected=spec.describe(batched=batched),
        fix=fix,
    )


def _plain(value: Any) -> Any:
    """The value without its library: numpy arrays and Python lists stay, pandas and torch become numpy."""
    if isinstance(value, (np.ndarray, np.generic, list, tuple, *_TEXT)):
        return value
    if hasattr(value, "to_numpy"):  # pandas Series, Index and DataFrame, polars, pyarrow
        return value.to_numpy()
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if isinstance(value, Iterable) and not isinstance(value, dict | set):
        return list(value)
    return value


def _shape_of(spec: TensorSpec, nested: Any) -> tuple[int, ...]:
    """The shape of nested lists. Raises: InvalidInput where they are ragged."""
    if isinstance(nested, np.ndarray):
        return nested.shape
    if not isinstance(nested, Sequence) or isinstance(nested, _TEXT):
        return ()
    shapes = {_shape_of(spec, item) for item in nested}
    if len(shapes) > 1:
        raise InvalidInput(
            f"input {spec.name} is ragged: its rows differ in length",
            got=" and ".join(str(list(s)) for s in sorted(shapes)[:2]),
            expected="rows of one shape",
            fix="pad the rows, or send them as requests of their own (infer_many)",
        )
    return (len(nested), *(shapes.pop() if shapes else ()))


def _leaves(nested: Any) -> Iterable[Any]:
    if isinstance(nested, np.ndarray):
        yield from nested.ravel().tolist() if nested.ndim else [nested.item()]
    elif isinstance(nested, Sequence) and not isinstance(nested, _TEXT):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested
