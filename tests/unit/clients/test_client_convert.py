"""What users hold becomes the array that a tensor takes, or is refused with both sides."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch

from clients.convert import text, to_array
from conch.errors import InvalidInput
from conch.tensor_spec import DATA_TYPES, TensorSpec


def spec(datatype: str, *dims: int) -> TensorSpec:
    return TensorSpec("x", datatype, dims)


@pytest.mark.parametrize(
    ("dims", "batched", "value", "shape"),
    [
        # 1. the whole rank: as it is
        ((1,), True, [["a"], ["b"]], (2, 1)),
        ((2, 2), True, np.zeros((3, 2, 2)), (3, 2, 2)),
        ((2,), False, [1, 2], (2,)),
        # 2. dims [1] and a flat value: one item each
        ((1,), True, ["a", "b"], (2, 1)),
        ((1,), True, ("a",), (1, 1)),
        ((1,), True, np.array([1.0, 2.0]), (2, 1)),
        ((1,), True, pd.Series([1, 2, 3]), (3, 1)),
        # 3. one item of a model that batches
        ((-1,), True, [1, 2, 3], (1, 3)),
        ((4,), True, [1, 2, 3, 4], (1, 4)),
        ((2, 2), True, [[1, 2], [3, 4]], (1, 2, 2)),
        # 4. a single value
        ((1,), True, "a", (1, 1)),
        ((1,), True, b"\x00\xff", (1, 1)),
        ((-1,), True, 5, (1, 1)),
        ((1,), False, np.float64(5), (1,)),
        ((1, 1), True, 5, (1, 1, 1)),
        ((), True, [1, 2], (2,)),
        ((), False, 3, ()),
    ],
)
def test_shapes_follow_the_documented_rules(dims: tuple[int, ...], batched: bool, value: Any, shape: Any) -> None:
    is_text = isinstance(np.asarray(value, dtype=object).ravel()[0], str | bytes)
    assert to_array(spec("BYTES" if is_text else "FP32", *dims), value, batched=batched).shape == shape


@pytest.mark.parametrize(
    ("dims", "batched", "value"),
    [((1,), False, [[1]]), ((2,), True, 1.0), ((2, 3), True, [1, 2]), ((1,), True, [[[1]]]), ((3,), False, 1)],
)
def test_a_rank_that_no_rule_covers_is_refused(dims: tuple[int, ...], batched: bool, value: Any) -> None:
    with pytest.raises(InvalidInput, match="wrong number of dimensions") as refused:
        to_array(spec("FP32", *dims), value, batched=batched)
    assert str(list(np.shape(value))) in str(refused.value.got)
    assert "x FP32" in str(refused.value.expected)


NUMBERS = [t.wire for t in DATA_TYPES if t.wire not in ("BYTES", "BOOL")]


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize(
    "value", [[1, 2], [1.0, 2.0], np.array([1, 2], np.uint8), pd.Series([1, 2], dtype=object), torch.tensor([1, 2])]
)
def test_small_whole_numbers_fit_every_number_type(datatype: str, value: Any) -> None:
    array = to_array(spec(datatype, -1), value, batched=False)
    assert array.dtype == spec(datatype, -1).numpy
    assert array.tolist() == [1, 2]
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("datatype", "value", "got"),
    [
        ("INT64", [1.5], "1.5"),
        ("INT64", [float("nan")], "NaN or infinity"),
        ("INT8", [200], "200"),
        ("UINT8", [-1], "-1"),
        ("INT64", [2**63], str(2**63)),
        ("UINT64", [2.0**64], "1.8"),
        ("BOOL", [2], "2"),
        ("FP16", [70000.0], "70000"),
        ("FP32", [1e300], "1e+300"),
        ("FP32", ["1.0"], "<U3"),
        ("FP32", [None], "missing value"),
        ("FP32", [1 + 2j], "complex"),
        ("FP32", np.array(["2024-01-01"], "datetime64[D]"), "datetime64"),
        ("FP32", [{}], "missing value"),
    ],
)
def test_a_value_that_would_be_changed_is_refused(datatype: str, value: Any, got: str) -> None:
    with pytest.raises(InvalidInput, match="wrong type") as refused:
        to_array(spec(datatype, -1), value, batched=False)
    assert got in str(refused.value.got)
    assert f"x {datatype}" in str(refused.value.expected)


def test_nan_and_infinity_are_floats_like_others() -> None:
    array = to_array(spec("FP16", -1), [float("nan"), float("inf")], batched=False)
    assert np.isnan(array[0])
    assert np.isinf(array[1])


@pytest.mark.parametrize(
    "value",
    [
        ["é", b"\xc3\xa9"],
        np.array(["é", "é"]),
        np.array(["é".encode()] * 2),
        np.array(["é", "é".encode()], dtype=object),
        pd.Series(["é", "é"]),
        (bytearray("é".encode()), memoryview("é".encode())),
    ],
)
def test_text_becomes_utf8(value: Any) -> None:
    array = to_array(spec("BYTES", 1), value, batched=True)
    assert array.tolist() == [["é".encode()], ["é".encode()]]
    assert {type(item) for item in array.ravel()} == {bytes}


def test_bytes_keep_their_trailing_zeros() -> None:
    assert to_array(spec("BYTES", 1), [b"a\x00\x00", "b\x00"], batched=True).tolist() == [[b"a\x00\x00"], [b"b\x00"]]


@pytest.mark.parametrize(
    ("value", "got"),
    [([1], "int 1"), ([None], "missing"), ([float("nan")], "missing"), ([1.5], "float"), (["\ud800"], "surrogates")],
)
def test_what_is_no_text_is_refused(value: Any, got: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_array(spec("BYTES", 1), value, batched=True)
    assert got in str(refused.value.got)


@pytest.mark.parametrize(("datatype", "value"), [("FP32", [[1, 2], [3]]), ("BYTES", [["a"], ["b", "c"]])])
def test_ragged_rows_are_named(datatype: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match="ragged") as refused:
        to_array(spec(datatype, -1), value, batched=True)
    assert "infer_many" in str(refused.value.fix)


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
def test_an_empty_list_has_the_tensors_type(datatype: str) -> None:
    array = to_array(spec(datatype, 1), [], batched=True)
    assert array.shape == (0, 1)
    assert array.dtype == spec(datatype).numpy


def test_bfloat16_arrays_are_float32_inside() -> None:
    array = to_array(spec("BF16", -1), np.array([1.5], ml_dtypes.bfloat16), batched=False)
    assert array.dtype == np.float32
    assert array.tolist() == [1.5]


def test_a_transposed_array_is_made_contiguous() -> None:
    source = np.arange(6, dtype=np.float32).reshape(2, 3).T
    array = to_array(spec("FP32", 3, 2), source[np.newaxis], batched=True)
    assert array.flags.c_contiguous
    assert array.tolist() == [source.tolist()]


def test_text_decodes_and_replaces_what_is_not_utf8() -> None:
    decoded = text(np.array([["é".encode()], [b"\xff"]], dtype=object))
    assert decoded.tolist() == [["é"], ["\ufffd"]]
