"""A part of a pipeline as a Triton model: requests to arrays, answers to responses.

Shared: each folder holds a link to this file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from pipeline_part import Answer, Ask, Part, PartSettings, Refusal


class PartModel(ABC):
    """Adapts tensors; one a model instance. A subclass says with `open_part` what does the work."""

    @abstractmethod
    def open_part(self, config: Mapping[str, Any], args: Mapping[str, str]) -> Part:
        """Load the part, as ``config`` and the ``args`` of Triton's `initialize` say. Raises: ValueError."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the part. Raises: whatever it raises, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        self._batched = config["max_batch_size"] > 0
        self._part = self.open_part(config, args)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request that is wrong gets an error of its own."""
        return [self._respond(answer) for answer in self._part.answer([self._read(request) for request in requests])]

    def _read(self, request: Any) -> Ask:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if not self._batched:
            arrays = {name: array[None] for name, array in arrays.items()}
        return Ask(arrays, request.requested_output_names())

    def _respond(self, answer: Answer) -> Any:
        if isinstance(answer, Refusal):
            code = pb_utils.TritonError.INVALID_ARG if answer.invalid else pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(answer.message, code))
        tensors = [pb_utils.Tensor(name, array if self._batched else array[0]) for name, array in answer.items()]
        return pb_utils.InferenceResponse(tensors)


def read_settings(config: Mapping[str, Any], args: Mapping[str, str]) -> PartSettings:
    """What config.pbtxt tells a part that is a model of its own; upper-case parameters are Triton's own."""
    parameters = config.get("parameters", {})
    return PartSettings(
        folder=Path(args["model_repository"], args["model_version"]),
        inputs={tensor["name"]: tuple(tensor["dims"]) for tensor in config["input"]},
        outputs={tensor["name"]: tuple(tensor["dims"]) for tensor in config["output"]},
        parameters={key: value["string_value"] for key, value in parameters.items() if not key.isupper()},
    )
