"""ONNX models of one or two operators, built by hand, with just the property that a test is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from conch.tensor_spec import ModelSignature, TensorSpec
from export.options import ExportOptions
from export.run_file import open_onnx
from export.source import Reference, Source, Tensors

WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)

SIGNATURE = ModelSignature((TensorSpec("x", "FP32", (4,)),), (TensorSpec("y", "FP32", (3,)),), 8)


def linear(
    *,
    batch: int | str = "batch",
    output: str = "y",
    ir_version: int = 10,
    opset: int = 20,
    weights: np.ndarray = WEIGHTS,
) -> onnx.ModelProto:
    """``output`` [batch, 3] = x [batch, 4] @ weights."""
    return _model(
        [helper.make_node("MatMul", ["x", "w"], [output])],
        inputs={"x": (TensorProto.FLOAT, [batch, weights.shape[0]])},
        outputs={output: (TensorProto.FLOAT, [batch, weights.shape[1]])},
        weights={"w": weights},
        ir_version=ir_version,
        opset=opset,
    )


def frozen_inside() -> onnx.ModelProto:
    """Declares any batch, but has reshaped to 2 rows of 4: it runs with the batch of 2 that it was made with alone."""
    return _model(
        [
            helper.make_node("Reshape", ["x", "shape"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["y"]),
        ],
        inputs={"x": (TensorProto.FLOAT, ["batch", 4])},
        outputs={"y": (TensorProto.FLOAT, ["batch", 3])},
        weights={"w": WEIGHTS, "shape": np.array([2, 4], dtype=np.int64)},
    )


def skip_layer_norm() -> onnx.ModelProto:
    """y [batch, 4, 4] = LayerNormalization(x @ w + x): the sum and the norm that ONNX Runtime fuses."""
    return _model(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "x"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["y"], axis=-1),
        ],
        inputs={"x": (TensorProto.FLOAT, ["batch", 4, 4])},
        outputs={"y": (TensorProto.FLOAT, ["batch", 4, 4])},
        weights={
            "w": np.eye(4, dtype=np.float32),
            "scale": np.ones(4, dtype=np.float32),
            "bias": np.zeros(4, dtype=np.float32),
        },
    )


def sums_lengths() -> onnx.ModelProto:
    """total [batch, 1] = the sum of tokens [batch, any length]."""
    return _model(
        [helper.make_node("ReduceSum", ["tokens", "axes"], ["total"], keepdims=1)],
        inputs={"tokens": (TensorProto.INT64, ["batch", "length"])},
        outputs={"total": (TensorProto.INT64, ["batch", 1])},
        weights={"axes": np.array([1], dtype=np.int64)},
    )


def colliding() -> onnx.ModelProto:
    """An output named ``embedding`` as an inner value is already: onnx writes it, no runtime loads it."""
    return _model(
        [
            helper.make_node("MatMul", ["x", "w"], ["embedding"]),
            helper.make_node("Relu", ["embedding"], ["embedding"]),
        ],
        inputs={"x": (TensorProto.FLOAT, ["batch", 4])},
        outputs={"embedding": (TensorProto.FLOAT, ["batch", 3])},
        weights={"w": WEIGHTS},
    )


def noted_gemm() -> onnx.ModelProto:
    """`linear` as torch writes it: a Gemm with turned weights, whose shape is noted among the inner values."""
    model = _model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        inputs={"x": (TensorProto.FLOAT, ["batch", 4])},
        outputs={"y": (TensorProto.FLOAT, ["batch", 3])},
        weights={"w": np.ascontiguousarray(WEIGHTS.T), "b": np.zeros(3, np.float32)},
    )
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]))
    return model


def upper_case() -> onnx.ModelProto:
    """y [batch, 1] = x [batch, 1] in upper case: strings, which no GPU takes."""
    return _model(
        [helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER", locale="C.UTF-8")],
        inputs={"x": (TensorProto.STRING, [1])},
        outputs={"y": (TensorProto.STRING, [1])},
        weights={},
    )


def wild_weights() -> np.ndarray:
    """Weights [64, 8] whose columns each have one enormous entry: 8 bits round all the others to nothing."""
    weights = np.random.default_rng(3).normal(size=(64, 8)).astype(np.float32)
    weights[0] = 5000.0
    return weights


def wild_samples() -> list[dict[str, np.ndarray]]:
    """Inputs [4, 64] that leave the enormous entries out."""
    x = np.random.default_rng(4).normal(size=(4, 64)).astype(np.float32)
    x[:, 0] = 0.0
    return [{"x": x}]


def save(model: onnx.ModelProto, path: Path, *, external: bool = False) -> Path:
    """Write a model; with ``external``, its weights into weights/w.bin beside it."""
    if external:
        (path.parent / "weights").mkdir(exist_ok=True)
        onnx.save(
            model,
            str(path),
            save_as_external_data=True,
            location="weights/w.bin",
            size_threshold=0,
            convert_attribute=False,
        )
    else:
        onnx.save(model, str(path))
    return path


def source(
    folder: Path, *, model: onnx.ModelProto | None = None, reference: Reference | None = None, rows: int = 2
) -> Source:
    """A Source of `linear`: its writer writes ``model``, its reference answers ``reference``, by default the same."""
    original = save(linear(), folder / "original.onnx")
    written = model if model is not None else linear()

    def write(path: Path, options: ExportOptions) -> None:
        save(written, path)

    return Source(
        provenance={"kind": "test"},
        signature=SIGNATURE,
        reference=reference or open_onnx(original),
        samples=[{"x": np.random.default_rng(1).normal(size=(rows, 4)).astype(np.float32)}],
        write=write,
    )


def off_by(amount: float) -> Reference:
    """`linear` in numpy, with ``amount`` added to every entry."""

    def run(tensors: Tensors) -> dict[str, np.ndarray]:
        return {"y": tensors["x"] @ WEIGHTS + np.float32(amount)}

    return run


def _model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    weights: dict[str, np.ndarray],
    ir_version: int = 10,
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model
