import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from conch.errors import SignatureError
from conch.tensor_spec import (
    DATA_TYPES,
    DataType,
    ModelSignature,
    TensorSpec,
    check_array,
    data_type,
    from_config_type,
    from_numpy_type,
    from_onnx_type,
)

each_type = pytest.mark.parametrize("row", DATA_TYPES, ids=lambda row: row.wire)


def test_the_table_has_every_type_of_triton() -> None:
    theirs = set(model_config_pb2.DataType.keys()) - {"TYPE_INVALID"}
    assert {row.config for row in DATA_TYPES} == theirs


@each_type
def test_onnx_numbers_are_onnx_own(row: DataType) -> None:
    name = {"BYTES": "STRING", "FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16"}.get(
        row.wire, row.wire
    )
    assert onnx.TensorProto.DataType.Value(name) == row.onnx
    assert from_onnx_type(row.onnx) is row


@each_type
def test_names_lead_back_to_the_row(row: DataType) -> None:
    assert data_type(row.wire) is row
    assert from_config_type(row.config) is row


@pytest.mark.parametrize("row", [r for r in DATA_TYPES if r.wire != "BF16"], ids=lambda r: r.wire)
def test_numpy_types_are_the_clients_own(row: DataType) -> None:
    assert np_to_triton_dtype(row.numpy) == row.wire
    assert from_numpy_type(row.numpy) is row


@pytest.mark.parametrize("row", [r for r in DATA_TYPES if r.torch], ids=lambda r: r.wire)
def test_torch_types_exist(row: DataType) -> None:
    assert isinstance(getattr(torch, str(row.torch)), torch.dtype)


@pytest.mark.parametrize("dtype", ["U5", "S3", object])
def test_text_of_any_width_is_bytes(dtype: object) -> None:
    assert from_numpy_type(dtype).wire == "BYTES"


def test_byte_order_does_not_matter() -> None:
    assert from_numpy_type(">f4").wire == "FP32"


@pytest.mark.parametrize(
    ("lookup", "key", "near"),
    [
        (data_type, "FP23", "FP32"),
        (from_config_type, "TYPE_FLOAT32", "TYPE_FP32"),
        (from_numpy_type, "complex64", None),
    ],
)
def test_an_unknown_type_is_named_with_the_nearest(lookup, key: str, near: str | None) -> None:
    with pytest.raises(SignatureError) as caught:
        lookup(key)
    assert key in str(caught.value)
    assert near is None or f"did you mean {near}?" in str(caught.value)


@pytest.mark.parametrize(
    ("dims", "batched", "shape", "fits"),
    [
        ((3,), True, (8, 3), True),
        ((3,), True, (3,), False),
        ((3,), False, (3,), True),
        ((-1,), True, (2, 77), True),
        ((-1, 4), False, (9, 4), True),
        ((-1, 4), False, (9, 5), False),
        ((), True, (8,), True),
    ],
)
def test_shapes_that_fit(dims: tuple[int, ...], batched: bool, shape: tuple[int, ...], fits: bool) -> None:
    assert TensorSpec("x", "FP32", dims).accepts(shape, batched=batched) is fits


@pytest.mark.parametrize("dims", [(0,), (-2,), (3, 0)])
def test_dims_that_mean_nothing_are_refused(dims: tuple[int, ...]) -> None:
    with pytest.raises(SignatureError, match="neither positive nor -1"):
        TensorSpec("x", "FP32", dims)


SIGNATURE = ModelSignature(
    inputs=(TensorSpec("text", "BYTES", (1,)), TensorSpec("weight", "FP32", (-1,), optional=True)),
    outputs=(TensorSpec("score", "FP32", (1,)),),
    max_batch_size=4,
)


def text(rows: int) -> np.ndarray:
    return np.full((rows, 1), "hello", dtype=object)


def test_good_inputs_pass() -> None:
    SIGNATURE.check_inputs({"text": text(4)})
    SIGNATURE.check_inputs({"text": text(2), "weight": np.zeros((2, 7), np.float32)})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, ["text is missing", "text BYTES [batch, 1]"]),
        ({"txt": text(1)}, ["no input named txt", "did you mean text?"]),
        ({"text": np.zeros((1, 1), np.float32)}, ["wrong type", "text FP32 [1, 1]", "text BYTES [batch, 1]"]),
        ({"text": text(2)[:, 0]}, ["wrong shape", "text BYTES [2]", "text BYTES [batch, 1]"]),
        ({"text": text(5)}, ["batch size", "5", "1 to 4"]),
        ({"text": text(0)}, ["batch size", "0", "1 to 4"]),
        ({"text": text(2), "weight": np.zeros((3, 1), np.float32)}, ["differ in batch size", "2", "3"]),
    ],
    ids=["missing", "unknown", "type", "shape", "too-many", "none", "uneven"],
)
def test_bad_inputs_are_refused_with_both_sides(inputs: dict[str, np.ndarray], says: list[str]) -> None:
    with pytest.raises(SignatureError) as caught:
        SIGNATURE.check_inputs(inputs)
    assert [part for part in says if part not in str(caught.value)] == []


def test_two_inputs_of_one_name_are_refused() -> None:
    twice = (TensorSpec("x", "FP32", (1,)), TensorSpec("x", "FP32", (1,)))
    with pytest.raises(SignatureError, match="two inputs share a name"):
        ModelSignature(inputs=twice, outputs=())


def test_bf16_takes_float32() -> None:
    check_array(TensorSpec("x", "BF16", (2,)), np.zeros(2, np.float32), batched=False)


@given(
    dims=st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=4),
    shape=st.lists(st.integers(1, 4), max_size=5),
    batched=st.booleans(),
)
def test_a_shape_is_accepted_just_when_each_size_is(dims: list[int], shape: list[int], batched: bool) -> None:
    due = ([-1] if batched else []) + dims
    fits = len(due) == len(shape) and not [1 for d, s in zip(due, shape, strict=True) if d not in (-1, s)]
    assert TensorSpec("x", "INT8", tuple(dims)).accepts(shape, batched=batched) is fits
