"""JSON values of a tensor: what becomes of right ones, and what is said of wrong ones."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from conch.tensor_spec import DATA_TYPES, TensorSpec
from gateway.errors import GatewayError
from gateway.rest.values import Column, describe, to_array

FILE = base64.b64encode(b"\x89PNG\x00").decode()


def array_of(datatype: str, dims: tuple[int, ...], *values: Any, name: str = "x") -> Any:
    return to_array(Column(TensorSpec(name, datatype, dims), values))


def refusal(datatype: str, dims: tuple[int, ...], *values: Any, name: str = "x", places: Any = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        to_array(Column(TensorSpec(name, datatype, dims), values, places))
    assert caught.value.status == 400
    return caught.value


class TestRightValues:
    @pytest.mark.parametrize("kind", [t for t in DATA_TYPES if t.wire != "BYTES"], ids=lambda t: t.wire)
    def test_every_type_of_number(self, kind: Any) -> None:
        value = True if kind.wire == "BOOL" else 1
        array = array_of(kind.wire, (2,), [value, value])
        assert array.dtype == kind.numpy
        assert array.tolist() == [[1, 1]]

    @pytest.mark.parametrize(
        ("datatype", "dims", "values", "expected"),
        [
            ("FP32", (1,), [1.5, 2], [[1.5], [2.0]]),
            ("FP32", (1,), [[1.5]], [[1.5]]),
            ("FP32", (1, 1), [[[1.5]], 2], [[[1.5]], [[2.0]]]),
            ("FP32", (), [3], [3.0]),
            ("INT64", (-1,), [[1, 2, 3]], [[1, 2, 3]]),
            ("INT64", (1,), [2.0], [[2]]),
            ("UINT64", (1,), [2**64 - 1], [[2**64 - 1]]),
            ("INT64", (1,), [-(2**63)], [[-(2**63)]]),
            ("FP32", (2, 2), [[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]),
            ("BYTES", (1,), ["a\x00", "안녕", ""], [[b"a\x00"], ["안녕".encode()], [b""]]),
            ("BYTES", (2,), [["a", {"base64": "/w=="}]], [[b"a", b"\xff"]]),
            ("BYTES", (1,), [b"raw"], [[b"raw"]]),
        ],
    )
    def test_values_become_arrays(self, datatype: str, dims: tuple[int, ...], values: list[Any], expected: Any) -> None:
        array = array_of(datatype, dims, *values)
        assert array.tolist() == expected
        assert array.shape[1:] == tuple(np.array(expected, dtype=object).shape[1:])

    @pytest.mark.parametrize("value", [FILE, f"data:image/png;base64,{FILE}", b"\x89PNG\x00"])
    def test_a_file_is_base64_a_data_url_or_the_bytes(self, value: Any) -> None:
        assert array_of("BYTES", (1,), value, name="image").tolist() == [[b"\x89PNG\x00"]]


class TestWrongValues:
    @pytest.mark.parametrize(
        ("datatype", "value"),
        [
            ("FP32", "1.5"),
            ("FP32", True),
            ("FP32", None),
            ("FP32", {}),
            ("INT32", 1.5),
            ("INT32", True),
            ("INT32", 2**31),
            ("INT32", -(2**31) - 1),
            ("INT8", 128),
            ("UINT8", -1),
            ("INT64", float("inf")),
            ("INT64", 10**400),
            ("BOOL", 1),
            ("BOOL", "true"),
            ("BYTES", 5),
            ("BYTES", None),
            ("BYTES", {"base64": "?"}),
            ("BYTES", {"base64": 5}),
            ("BYTES", {"base64": "", "more": 1}),
        ],
    )
    def test_a_wrong_type_is_refused_with_its_place(self, datatype: str, value: Any) -> None:
        error = refusal(datatype, (1,), value)
        assert error.what == "x has the wrong type"
        assert error.param == "x"
        assert error.expected == describe(TensorSpec("x", datatype, (1,)))

    @pytest.mark.parametrize(
        ("datatype", "value"),
        [("FP32", 1e39), ("FP32", float("inf")), ("FP16", 70000), ("FP64", 10**400), ("FP64", -(10**400))],
    )
    def test_a_number_that_is_too_large_is_refused(self, datatype: str, value: Any) -> None:
        assert refusal(datatype, (1,), value).what == f"x is out of the range of {datatype}"

    @pytest.mark.parametrize(
        ("dims", "values", "place", "got"),
        [
            ((1,), [[1, 2]], "x", "a list of 2"),
            ((1,), [[]], "x", "a list of 0"),
            ((2,), [5], "x", "a number: 5"),
            ((2,), [[1]], "x", "a list of 1"),
            ((2,), [[1, 2, 3]], "x", "a list of 3"),
            ((-1,), [[]], "x", "an empty list"),
            ((2, 2), [[[1, 2], [3]]], "x[1]", "a list of 1"),
            ((-1, 2), [[[1, 2], 3]], "x[1]", "a number: 3"),
            ((-1,), [{"a": 1}], "x", "an object"),
        ],
    )
    def test_a_wrong_shape_is_refused_with_its_place(
        self, dims: tuple[int, ...], values: list[Any], place: str, got: str
    ) -> None:
        error = refusal("FP32", dims, *values)
        assert (error.what, error.param, error.got) == (f"{place} has the wrong shape", place, got)

    @pytest.mark.parametrize(
        ("dims", "value", "place"),
        [((2,), [1, [2]], "x[1]"), ((1,), [[1]], "x"), ((2, 1), [[1], [None]], "x[1][0]")],
    )
    def test_too_many_lists_or_a_wrong_value_deep_inside(self, dims: tuple[int, ...], value: Any, place: str) -> None:
        assert str(refusal("FP32", dims, value).param).startswith(place)

    def test_lists_of_different_lengths_are_refused(self) -> None:
        error = refusal("FP32", (-1, -1), [[1, 2], [3]])
        assert error.what == "x has lists of different lengths"

    def test_the_place_in_a_batch_is_the_row_s(self) -> None:
        error = refusal("FP32", (2,), [1, 2], [3, "four"], places=[4, 7])
        assert error.param == "rows[7].x[1]"
        assert error.got == "text: 'four'"

    @pytest.mark.parametrize("value", ["no base64!", "", "data:image/png,abc", 5])
    def test_what_is_no_file_is_refused(self, value: Any) -> None:
        error = refusal("BYTES", (1,), value, name="image")
        assert error.expected == "an image file in base64"

    def test_a_missing_value_is_told_how_to_mend_it(self) -> None:
        assert refusal("FP32", (1,), None).fix == "fill missing values first"

    def test_a_long_value_is_cut_in_the_message(self) -> None:
        assert len(refusal("FP32", (1,), "x" * 10**6).message) < 300


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (TensorSpec("x", "FP32", (1,)), "a number"),
        (TensorSpec("x", "BOOL", (1,)), "true or false"),
        (TensorSpec("x", "BYTES", (1,)), "text"),
        (TensorSpec("x", "UINT8", (1,)), "a whole number from 0 to 255"),
        (TensorSpec("x", "FP32", (30,)), "a list of 30 numbers"),
        (TensorSpec("x", "BYTES", (-1,)), "a list of texts"),
        (TensorSpec("x", "FP32", (1, 8, 8)), "a list of 1 of a list of 8 of a list of 8 numbers"),
        (TensorSpec("image", "BYTES", (1,)), "an image file in base64"),
    ],
)
def test_what_a_value_has_to_be(spec: TensorSpec, expected: str) -> None:
    assert describe(spec) == expected
