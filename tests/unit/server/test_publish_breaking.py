"""Which changes of a model's tensors break who asks it."""

from __future__ import annotations

import pytest

from conch.model_config import ModelConfig, ModelConfigMessage, add_tensors
from conch.tensor_spec import ModelSignature, TensorSpec
from server.rollout.changes import breaking

X = TensorSpec("x", "FP32", (4,))
Y = TensorSpec("y", "FP32", (3,))


def config(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (Y,), batch: int = 8) -> ModelConfigMessage:
    signature = ModelSignature(inputs, outputs, batch)
    message = ModelConfig(name="m", max_batch_size=batch)
    add_tensors(message, signature)
    return message


@pytest.mark.parametrize(
    "after",
    [
        config(X),
        config(X, batch=16),
        config(X, TensorSpec("more", "FP32", (1,), optional=True)),
        config(TensorSpec("x", "FP32", (-1,))),
        config(X, outputs=(Y, TensorSpec("z", "FP32", (1,)))),
        config(X, outputs=(TensorSpec("y", "FP32", (5,)),)),
    ],
    ids=["nothing", "larger batches", "an optional input", "any size", "an output more", "an output's size"],
)
def test_what_breaks_nobody(after: ModelConfigMessage) -> None:
    assert breaking(config(X), after) == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (config(TensorSpec("features", "FP32", (4,))), "input x is gone"),
        (config(X, TensorSpec("more", "FP32", (1,))), "input more is new, and not optional"),
        (config(TensorSpec("x", "FP64", (4,))), "input x FP32 [batch, 4] becomes x FP64 [batch, 4]"),
        (config(TensorSpec("x", "FP32", (5,))), "input x FP32 [batch, 4] becomes x FP32 [batch, 5]"),
        (config(TensorSpec("x", "FP32", (4, 1))), "input x FP32 [batch, 4] becomes x FP32 [batch, 4, 1]"),
        (config(X, outputs=(TensorSpec("z", "FP32", (3,)),)), "output y is gone"),
        (config(X, outputs=(TensorSpec("y", "INT64", (3,)),)), "output y FP32 [batch, 3] becomes y INT64 [batch, 3]"),
        (config(X, batch=0), "input x FP32 [batch, 4] becomes x FP32 [4]"),
    ],
)
def test_what_breaks_clients(after: ModelConfigMessage, told: str) -> None:
    assert told in breaking(config(X), after)
