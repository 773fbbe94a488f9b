"""`image` STRING [1], an encoded file, in; `pixel_values` FP32 [channels, height, width] out.

The work is done in image_pixels.py, with the steps that picture_steps.py reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from image_pixels import MAX_PIXELS, PILLOW_MAX_PIXELS, PictureError, PixelReader
from picture_steps import Steps, read_steps
from pipeline_part import Answer, Array, Ask, PartSettings, answer_each, check_parameters

PARAMETERS = ("max_pixels", "processor")


class Part:
    """Decodes the pictures of requests."""

    def __init__(self, settings: PartSettings) -> None:
        """Read parameters and the processor's file. Raises: ValueError."""
        parameters = settings.parameters
        check_parameters(parameters, PARAMETERS)
        steps = read_steps(settings.folder / parameters.get("processor", "processor.json"))
        check_output(settings.outputs, steps)
        self._reader = PixelReader(steps, read_max_pixels(parameters))

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one with a bad picture is refused."""
        return answer_each(asks, self._pixels, PictureError)

    def _pixels(self, ask: Ask) -> dict[str, Array]:
        files = ask.tensors.get("image")
        if files is None:
            raise PictureError("input image: got nothing, expected STRING [batch, 1]")
        if files.ndim != 2 or files.shape[-1] != 1:
            raise PictureError(f"input image: got shape {list(files.shape)}, expected [batch, 1]")
        pictures = [self._reader.read(data, index) for index, data in enumerate(files.ravel())]
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            got = ", ".join(str(list(size)) for size in sorted(sizes))
            raise PictureError(f"input image: got pictures that become {got}, expected one size in a request")
        return {"pixel_values": np.stack(pictures)}


def check_output(outputs: Mapping[str, Sequence[int]], steps: Steps) -> None:
    """Raise ValueError unless the config declares the one output that these steps make."""
    if list(outputs) != ["pixel_values"]:
        raise ValueError(f"outputs: got {', '.join(outputs) or 'none'} in the config, expected pixel_values")
    due = [steps.channels, *(steps.output_size() or (-1, -1))]
    dims = list(outputs["pixel_values"])
    if len(dims) != 3 or any(d not in (-1, s) and s != -1 for d, s in zip(dims, due, strict=True)):
        raise ValueError(f"output pixel_values: got {dims} in the config, expected {due}, as the processor makes them")


def read_max_pixels(parameters: Mapping[str, str]) -> int:
    """The largest picture that is decoded, in pixels. Raises: ValueError."""
    value = parameters.get("max_pixels", str(MAX_PIXELS))
    if not value.isdecimal() or not 1 <= int(value) <= PILLOW_MAX_PIXELS:
        raise ValueError(f"parameter max_pixels: got {value!r}, expected a whole number from 1 to {PILLOW_MAX_PIXELS}")
    return int(value)
