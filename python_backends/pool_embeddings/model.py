"""Triton model: `last_hidden_state` [-1, d] and `attention_mask` [-1] in, `embedding` FP32 [d] out.

The work is done in embedding_pooling.py.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from embedding_pooling import POOLINGS, PoolingError, pool

PARAMETERS = ("normalize", "pooling")


class TritonPythonModel:
    """Adapts tensors; one a model instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read parameters. Raises: ValueError, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        parameters = read_parameters(config)
        self._batched = config["max_batch_size"] > 0
        self._pooling = parameters.get("pooling", "mean")
        if self._pooling not in POOLINGS:
            raise ValueError(f"parameter pooling: got {self._pooling!r}, expected one of {', '.join(POOLINGS)}")
        normalize = parameters.get("normalize", "true")
        if normalize not in ("true", "false"):
            raise ValueError(f"parameter normalize: got {normalize!r}, expected true or false")
        self._normalize = normalize == "true"
        names = [output["name"] for output in config["output"]]
        if names != ["embedding"]:
            raise ValueError(f"outputs: got {', '.join(names) or 'none'} in the config, expected embedding")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request that cannot be pooled gets an error of its own."""
        responses = []
        for request in requests:
            try:
                responses.append(self._respond(request))
            except PoolingError as error:
                failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=failure))
        return responses

    def _respond(self, request: Any) -> Any:
        hidden, mask = (self._read(request, name) for name in ("last_hidden_state", "attention_mask"))
        embedding = pool(hidden, mask, self._pooling, normalize=self._normalize)
        return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", embedding if self._batched else embedding[0])])

    def _read(self, request: Any, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None:
            raise PoolingError(f"input {name}: got nothing, expected a tensor")
        array = tensor.as_numpy()
        return array if self._batched else array[None]


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of config.pbtxt; upper-case ones are Triton's own. Raises: ValueError for one we do not have."""
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    return given
