"""One vector a text, from the vectors of its tokens. Knows nothing of Triton."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

POOLINGS = ("mean", "cls", "max", "last")

Array = npt.NDArray[Any]


class PoolingError(ValueError):
    """A request's tensors cannot be pooled; the message names tensor, got and expected."""


def pool(hidden: Array, mask: Array, pooling: str, *, normalize: bool) -> Array:
    """FP32 [n, d] from hidden states [n, length, d] and attention mask [n, length].

    ``mean`` and ``max`` run over the tokens that the mask keeps, ``cls`` takes the first and ``last`` the last of
    them, whichever side is padded. A row that keeps no token gives zeros. ``normalize`` scales each row to length 1.
    Raises: PoolingError.
    """
    if hidden.ndim != 3:
        got = list(hidden.shape)
        raise PoolingError(f"input last_hidden_state: got shape {got}, expected [batch, length, dimension]")
    if mask.shape != hidden.shape[:2]:
        due = list(hidden.shape[:2])
        raise PoolingError(f"input attention_mask: got shape {list(mask.shape)}, expected {due}, as in the states")
    kept = mask != 0
    empty = ~kept.any(axis=1)
    pooled: Array
    if pooling == "mean":
        weights = kept.astype(np.float32)
        summed = np.matmul(weights[:, None, :], hidden)[:, 0, :]  # [n, d]
        pooled = summed / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    elif hidden.shape[1] == 0:
        pooled = np.zeros((hidden.shape[0], hidden.shape[2]), dtype=np.float32)
    elif pooling == "max":
        pooled = np.where(kept[:, :, None], hidden, -np.inf).max(axis=1)
    else:
        position = kept.argmax(axis=1) if pooling == "cls" else kept.shape[1] - 1 - kept[:, ::-1].argmax(axis=1)
        pooled = hidden[np.arange(len(hidden)), position]
    pooled = np.where(empty[:, None], 0, pooled).astype(np.float32)
    if normalize:
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        pooled /= np.maximum(length, 1e-12)
    return pooled
