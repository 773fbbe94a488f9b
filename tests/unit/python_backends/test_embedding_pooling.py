"""Pooling honours the mask, whatever stands in the padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from python_backends.pool_embeddings.embedding_pooling import POOLINGS, PoolingError, pool
from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import TritonError

STATES = np.array([[[1, 2], [3, 8], [99, -99]], [[5, 5], [1, 1], [0, 6]]], dtype=np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "due"),
    [
        ("mean", [[2, 5], [2, 4]]),
        ("max", [[3, 8], [5, 6]]),
        ("cls", [[1, 2], [5, 5]]),
        ("last", [[3, 8], [0, 6]]),
    ],
)
def test_poolings(pooling: str, due: list[list[float]]) -> None:
    got = pool(STATES, MASK, pooling, normalize=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, due)


@pytest.mark.parametrize("pooling", POOLINGS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_padding_on_either_side_changes_nothing(pooling: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    length, left, right = (data.draw(st.integers(low, 5)) for low in (1, 0, 0))
    states = rng.normal(0, 1, (2, length, 4)).astype(np.float32)
    padded = np.pad(states, [(0, 0), (left, right), (0, 0)], constant_values=1e3)
    mask = np.pad(np.ones((2, length)), [(0, 0), (left, right)])
    due = pool(states, np.ones((2, length)), pooling, normalize=True)
    np.testing.assert_allclose(pool(padded, mask, pooling, normalize=True), due, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(due, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("length", [0, 3])
def test_a_row_without_tokens_gives_zeros(pooling: str, length: int) -> None:
    got = pool(np.ones((1, length, 2), dtype=np.float32), np.zeros((1, length)), pooling, normalize=True)
    assert got.tolist() == [[0, 0]]


def test_mean_pooling_is_that_of_torch() -> None:
    import torch

    rng = np.random.default_rng(0)
    states = rng.normal(0, 3, (4, 9, 32)).astype(np.float32)
    mask = (np.arange(9) < np.array([[9], [1], [5], [7]])).astype(np.int64)
    weights = torch.from_numpy(mask)[:, :, None].float()
    mean = (torch.from_numpy(states) * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    due = torch.nn.functional.normalize(mean, p=2, dim=1).numpy()
    np.testing.assert_allclose(pool(states, mask, "mean", normalize=True), due, atol=1e-6)


def test_half_precision_is_pooled_in_float32() -> None:
    states = np.full((1, 600, 1), 1000, dtype=np.float16)
    assert pool(states, np.ones((1, 600)), "mean", normalize=False).tolist() == [[1000]]


@pytest.mark.parametrize(
    ("states", "mask", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 3)), r"input last_hidden_state: got shape \[2, 3\]"),
        (np.zeros((2, 3, 4)), np.ones((2, 2)), r"input attention_mask: got shape \[2, 2\], expected \[2, 3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(states: Any, mask: Any, message: str) -> None:
    with pytest.raises(PoolingError, match=message):
        pool(states, mask, "mean", normalize=True)


CONFIG = {
    "inputs": {"last_hidden_state": ("TYPE_FP32", [-1, 2]), "attention_mask": ("TYPE_INT64", [-1])},
    "outputs": {"embedding": ("TYPE_FP32", [2])},
}


def test_the_model_answers_each_request_and_fails_them_alone(version_folder: Any) -> None:
    config = fake.model_config(**CONFIG, parameters={"pooling": "mean", "normalize": "false"})
    with fake.load(version_folder("pool_embeddings"), config) as model:
        good, error, missing, last = model.execute(
            {"last_hidden_state": STATES, "attention_mask": MASK},
            {"last_hidden_state": STATES, "attention_mask": MASK[:, :2]},
            {"last_hidden_state": STATES},
            {"last_hidden_state": STATES[:1, :2], "attention_mask": MASK[:1, :2]},
        )
    np.testing.assert_allclose(good["embedding"], [[2, 5], [2, 4]])
    np.testing.assert_allclose(last["embedding"], [[2, 5]])
    assert isinstance(error, TritonError)
    assert "input attention_mask: got shape [2, 2], expected [2, 3]" in error.message()
    assert isinstance(missing, TritonError)
    assert "input attention_mask: got nothing" in missing.message()


def test_without_a_batch_dimension(version_folder: Any) -> None:
    config = fake.model_config(**CONFIG, max_batch_size=0)
    with fake.load(version_folder("pool_embeddings"), config) as model:
        answer = model.infer(last_hidden_state=STATES[0], attention_mask=MASK[0])
    np.testing.assert_allclose(answer["embedding"], np.array([2, 5]) / np.sqrt(29), rtol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "average"}, "parameter pooling: got 'average', expected one of mean, cls, max, last"),
        ({"normalize": "1"}, "parameter normalize: got '1', expected true or false"),
        ({"normalise": "true"}, "did you mean normalize"),
    ],
)
def test_wrong_parameters_stop_the_load(parameters: dict[str, str], message: str, version_folder: Any) -> None:
    config = fake.model_config(**CONFIG, parameters=parameters)
    with pytest.raises(ValueError, match=message), fake.load(version_folder("pool_embeddings"), config):
        pass
