"""An encoded picture to the pixels that a model takes, as its own transformers image processor computes them.

Knows nothing of Triton. The steps are those of transformers' Pillow-based processors, in their order: turn as EXIF
says, convert to RGB, resize, crop, rescale, normalize; the last two are one table look-up, as a channel has 256 values.
Different on purpose: 16-bit grey pictures are scaled to 8 bits; Pillow's conversion turns nearly all of them white.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from picture_steps import Size, Steps
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 64_000_000

# Pillow itself refuses pictures of twice its own limit when they are opened.
PILLOW_MAX_PIXELS = 178_956_970

# How to turn a picture upright, by the EXIF tag that says how it was held; 1 is upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Array = npt.NDArray[Any]


class PictureError(ValueError):
    """A request's picture cannot be used; the message names tensor, got and expected."""


class PixelReader:
    """Reads pictures with one set of steps."""

    def __init__(self, steps: Steps, max_pixels: int = MAX_PIXELS) -> None:
        self.steps = steps
        self._max_pixels = max_pixels
        self._table = steps.table()

    def read(self, data: bytes, index: int = 0) -> Array:
        """One encoded file as FP32 [channels, height, width]. ``index`` is its place in the request, for messages.

        Raises: PictureError.
        """
        picture = decode(data, index, self._max_pixels)
        picture = _to_channels(picture, self.steps)
        picture = self._resize(picture, index)
        pixels = np.asarray(picture)  # uint8 [height, width(, 3)]
        planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        for size in self.steps.crops:
            planes = _crop(planes, size)
        if self.steps.reverse_channels:
            planes = planes[::-1]
        return np.stack([column[plane] for column, plane in zip(self._table, planes, strict=True)])

    def _resize(self, picture: Image.Image, index: int) -> Image.Image:
        size = self._target(picture)
        if size is None:
            return picture
        height, width = size
        if height * width > self._max_pixels:
            raise PictureError(
                f"input image: got a picture of {picture.width} x {picture.height} pixels at index {index}, which "
                f"becomes {width} x {height} when resized, expected at most {self._max_pixels} pixels"
            )
        return picture.resize((width, height), resample=Image.Resampling(self.steps.resample))

    def _target(self, picture: Image.Image) -> Size | None:
        edge = self.steps.shortest_edge
        if edge is None:
            return self.steps.exact
        short, long = sorted((picture.width, picture.height))
        other = int(edge * long / short)
        return (other, edge) if picture.width <= picture.height else (edge, other)


def decode(data: bytes, index: int, max_pixels: int) -> Image.Image:
    """The picture in a file, upright, its pixels loaded. Raises: PictureError.

    Its size is read from the header and checked before any pixel is decoded.
    """
    if not data:
        raise PictureError(f"input image: got an empty file at index {index}, expected a JPEG, PNG or WebP file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit here is our own
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"input image: got a picture of more than {PILLOW_MAX_PIXELS} pixels at index {index}, "
            f"expected at most {max_pixels}"
        ) from error
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error and others
        raise PictureError(
            f"input image: got {len(data)} bytes at index {index} that are no picture, expected JPEG, PNG or WebP"
        ) from error
    if picture.width * picture.height > max_pixels:
        raise PictureError(
            f"input image: got a picture of {picture.width} x {picture.height} pixels at index {index}, "
            f"expected at most {max_pixels} pixels"
        )
    try:
        picture.load()
        # Not ImageOps.exif_transpose: it writes all notes anew, and fails on odd ones that say nothing of this.
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        raise PictureError(
            f"input image: got a broken {picture.format} file at index {index} ({error}), expected a whole file"
        ) from error
    return picture if turn is None else picture.transpose(turn)


def _to_channels(picture: Image.Image, steps: Steps) -> Image.Image:
    """The picture in mode RGB or L."""
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow's convert would cut every value off at 255.
        grey = np.asarray(picture).astype(np.int64) >> 8
        picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if steps.on_white and ("A" in picture.getbands() or picture.info.get("transparency") is not None):
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("L" if steps.channels == 1 else "RGB")


def _crop(planes: Array, size: Size) -> Array:
    """The middle of [channels, height, width]; where the picture is smaller, it gets a frame of zeros."""
    height, width = size
    missing_height, missing_width = max(0, height - planes.shape[1]), max(0, width - planes.shape[2])
    if missing_height or missing_width:
        top, left = -(-missing_height // 2), -(-missing_width // 2)
        frame = ((0, 0), (top, missing_height - top), (left, missing_width - left))
        # Rounding up goes to the leading side, and the crop below starts where transformers' does.
        planes = np.pad(planes, frame)
    top, left = (planes.shape[1] - height) // 2, (planes.shape[2] - width) // 2
    return planes[:, top : top + height, left : left + width]
