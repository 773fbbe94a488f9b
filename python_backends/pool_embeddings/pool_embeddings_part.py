"""`last_hidden_state` [-1, d] and `attention_mask` [-1] in, `embedding` FP32 [d] out.

The work is done in embedding_pooling.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from embedding_pooling import POOLINGS, PoolingError, pool
from pipeline_part import Answer, Array, Ask, PartSettings, answer_each, check_parameters

PARAMETERS = ("normalize", "pooling")


class Part:
    """Pools the token vectors of requests."""

    def __init__(self, settings: PartSettings) -> None:
        """Read parameters. Raises: ValueError."""
        parameters = settings.parameters
        check_parameters(parameters, PARAMETERS)
        self._pooling = parameters.get("pooling", "mean")
        if self._pooling not in POOLINGS:
            raise ValueError(f"parameter pooling: got {self._pooling!r}, expected one of {', '.join(POOLINGS)}")
        normalize = parameters.get("normalize", "true")
        if normalize not in ("true", "false"):
            raise ValueError(f"parameter normalize: got {normalize!r}, expected true or false")
        self._normalize = normalize == "true"
        if list(settings.outputs) != ["embedding"]:
            got = ", ".join(settings.outputs) or "none"
            raise ValueError(f"outputs: got {got} in the config, expected embedding")

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one that cannot be pooled is refused."""
        return answer_each(asks, self._pool, PoolingError)

    def _pool(self, ask: Ask) -> dict[str, Array]:
        hidden, mask = (read_input(ask, name) for name in ("last_hidden_state", "attention_mask"))
        return {"embedding": pool(hidden, mask, self._pooling, normalize=self._normalize)}


def read_input(ask: Ask, name: str) -> Array:
    """An input's array. Raises: PoolingError when the request does not have it."""
    array = ask.tensors.get(name)
    if array is None:
        raise PoolingError(f"input {name}: got nothing, expected a tensor")
    return array
