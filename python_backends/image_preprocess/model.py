"""Triton model: `image` STRING [1], an encoded file, in; `pixel_values` FP32 [channels, height, width] out.

The work is done in image_pixels.py, with the steps that picture_steps.py reads.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from image_pixels import MAX_PIXELS, PILLOW_MAX_PIXELS, PictureError, PixelReader
from picture_steps import Steps, read_steps

PARAMETERS = ("max_pixels", "processor")


class TritonPythonModel:
    """Adapts tensors; one a model instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read parameters and the processor's file. Raises: ValueError, which Triton shows for a failed load."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        parameters = read_parameters(config)
        self._batched = config["max_batch_size"] > 0
        steps = read_steps(folder / parameters.get("processor", "processor.json"))
        check_output(config, steps)
        self._reader = PixelReader(steps, read_max_pixels(parameters))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request with a bad picture gets an error of its own."""
        responses = []
        for request in requests:
            try:
                responses.append(self._respond(request))
            except PictureError as error:
                failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=failure))
        return responses

    def _respond(self, request: Any) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, "image")
        if tensor is None:
            raise PictureError("input image: got nothing, expected STRING [batch, 1]")
        files = tensor.as_numpy()
        if files.ndim not in (1, 2) or files.shape[-1] != 1:
            raise PictureError(f"input image: got shape {list(files.shape)}, expected [batch, 1]")
        pictures = [self._reader.read(data, index) for index, data in enumerate(files.ravel())]
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            got = ", ".join(str(list(size)) for size in sorted(sizes))
            raise PictureError(f"input image: got pictures that become {got}, expected one size in a request")
        pixels = np.stack(pictures) if self._batched else pictures[0]
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixel_values", pixels)])


def check_output(config: Mapping[str, Any], steps: Steps) -> None:
    """Raise ValueError unless the config declares the one output that these steps make."""
    outputs = config["output"]
    if [output["name"] for output in outputs] != ["pixel_values"]:
        got = ", ".join(output["name"] for output in outputs) or "none"
        raise ValueError(f"outputs: got {got} in the config, expected pixel_values")
    due = [steps.channels, *(steps.output_size() or (-1, -1))]
    dims = outputs[0]["dims"]
    if len(dims) != 3 or any(d not in (-1, s) and s != -1 for d, s in zip(dims, due, strict=True)):
        raise ValueError(f"output pixel_values: got {dims} in the config, expected {due}, as the processor makes them")


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of config.pbtxt; upper-case ones are Triton's own. Raises: ValueError for one we do not have."""
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    return given


def read_max_pixels(parameters: Mapping[str, str]) -> int:
    """The largest picture that is decoded, in pixels. Raises: ValueError."""
    value = parameters.get("max_pixels", str(MAX_PIXELS))
    if not value.isdecimal() or not 1 <= int(value) <= PILLOW_MAX_PIXELS:
        raise ValueError(f"parameter max_pixels: got {value!r}, expected a whole number from 1 to {PILLOW_MAX_PIXELS}")
    return int(value)
