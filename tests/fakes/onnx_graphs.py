"""Tiny ONNX graphs, as the bytes of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]
FP32 = TensorProto.FLOAT


def identity(onnx_type: int = FP32, dims: Dims = ("batch", 3)) -> bytes:
    """Graph y = x."""
    return _file(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", onnx_type, dims)],
        [helper.make_tensor_value_info("y", onnx_type, dims)],
    )


def identities(onnx_types: Mapping[str, int]) -> bytes:
    """Graph output_NAME [batch, n] = input_NAME [batch, n], for each name and its ONNX type."""
    dims = ["batch", "n"]
    return _file(
        [helper.make_node("Identity", [f"input_{name}"], [f"output_{name}"]) for name in onnx_types],
        [helper.make_tensor_value_info(f"input_{name}", kind, dims) for name, kind in onnx_types.items()],
        [helper.make_tensor_value_info(f"output_{name}", kind, dims) for name, kind in onnx_types.items()],
    )


def affine(weight: np.ndarray, bias: np.ndarray) -> bytes:
    """Graph y [batch, m] = x [batch, n] @ weight [n, m] + bias [m], and y2 = 2 * y."""
    n, m = weight.shape
    return _file(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
            helper.make_node("Add", ["y", "y"], ["y2"]),
        ],
        [helper.make_tensor_value_info("x", FP32, ["batch", n])],
        [helper.make_tensor_value_info(name, FP32, ["batch", m]) for name in ("y", "y2")],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )


def lookup(table: np.ndarray) -> bytes:
    """Graph y [batch] = table [n] at x INT64 [batch, 1]: fails for an index beyond the table."""
    return _file(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 1])],
        [helper.make_tensor_value_info("y", FP32, ["batch", 1])],
        [numpy_helper.from_array(table, "table")],
    )


def add_with_default(default: np.ndarray) -> bytes:
    """Graph y [n] = x [n] + bias [n], where ``bias`` is an input with a default."""
    n = len(default)
    return _file(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [helper.make_tensor_value_info(name, FP32, [n]) for name in ("x", "bias")],
        [helper.make_tensor_value_info("y", FP32, [n])],
        [numpy_helper.from_array(default, "bias")],
    )


def pick_row(table: np.ndarray) -> bytes:
    """Graph y [m] = table [n, m] at the scalar x INT64 [], and x_again = x."""
    return _file(
        [helper.make_node("Gather", ["table", "x"], ["y"]), helper.make_node("Identity", ["x"], ["x_again"])],
        [helper.make_tensor_value_info("x", TensorProto.INT64, [])],
        [
            helper.make_tensor_value_info("y", FP32, [table.shape[1]]),
            helper.make_tensor_value_info("x_again", TensorProto.INT64, []),
        ],
        [numpy_helper.from_array(table, "table")],
    )


def _file(nodes: list, inputs: list, outputs: list, initializers: Sequence = ()) -> bytes:  # type: ignore[type-arg]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
