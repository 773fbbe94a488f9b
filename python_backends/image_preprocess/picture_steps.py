"""What is done to a picture before the model sees it, read from transformers' preprocessor_config.json.

Source: https://huggingface.co/docs/transformers/main_classes/image_processor
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# Processors that resize, crop, rescale and normalize, and do nothing else, without the suffix ImageProcessor.
PLAIN_PROCESSORS = (
    *("Beit", "Bit", "Blip", "ChineseCLIP", "CLIP", "DeiT", "MobileNetV1", "MobileNetV2", "MobileViT"),
    *("Pvt", "Siglip", "ViT"),
)
# Below an edge of 384 they resize to edge / crop_pct and cut the middle out; from 384 on they warp.
CROP_PCT_PROCESSORS = ("ConvNext",)
# Those that take a plain number in `size` for both edges, and not for the shorter one.
_SQUARE_PROCESSORS = ("Beit", "Blip", "DeiT", "Pvt", "Siglip", "ViT")

Array = npt.NDArray[Any]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Steps:
    """What is done to a picture. None leaves a step out; sizes are (height, width) in pixels.

    ``shortest_edge`` keeps the aspect ratio, ``exact`` does not; at most one is set. ``resample`` is Pillow's number
    of the filter. ``on_white`` lays transparent pictures on white; otherwise transparency is dropped.
    """

    channels: int = 3
    on_white: bool = False
    exact: Size | None = None
    shortest_edge: int | None = None
    resample: int = 2
    crops: tuple[Size, ...] = ()
    rescale_factor: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    reverse_channels: bool = False

    def output_size(self) -> Size | None:
        """The height and width of every output, or None when they depend on the picture."""
        return self.crops[-1] if self.crops else self.exact

    def table(self) -> Array:
        """What each of the 256 values becomes, FP32 [channels, 256], with the roundings of transformers' own code."""
        values = np.arange(256)
        if self.rescale_factor is not None:
            rescaled: Array = (values.astype(np.float64) * self.rescale_factor).astype(np.float32)
        else:
            rescaled = values.astype(np.float32)
        table = np.repeat(rescaled[None], self.channels, axis=0)
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(x, dtype=np.float32)[:, None] for x in (self.mean, self.std))
            table = (table - mean) / std
        return table


def read_steps(path: Path) -> Steps:
    """The steps that a JSON file asks for, in the words of transformers' preprocessor_config.json.

    ``channels`` (1 or 3) is ours. Keys that say nothing of these steps are passed over. Raises: ValueError when the
    file asks for something that is not done here, or contradicts itself.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path.name}: got {type(document).__name__}, expected an object")
    try:
        return parse_steps(document)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def parse_steps(document: Mapping[str, Any]) -> Steps:
    """As `read_steps`, from the document itself."""
    family = _family(document)
    for key in ("do_pad", "do_thumbnail", "do_align_long_axis", "do_split_image", "do_color_quantize"):
        if document.get(key):
            raise ValueError(f"{key}: got true, expected false: this step is not done here")
    channels = document.get("channels", 3)
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels!r}, expected 1 (grey) or 3 (RGB)")
    exact, edge, crops = _sizes(document, family)
    # MobileViT was trained on BGR pixels from 0 to 1: its processor flips by default and never normalizes.
    mobilevit = family == "MobileViT"
    normalized = bool(document.get("do_normalize", "image_mean" in document)) and not mobilevit
    rescaled = bool(document.get("do_rescale", True))
    reverses = bool(document.get("do_flip_channel_order", mobilevit))
    return Steps(
        channels=channels,
        on_white=bool(document.get("do_convert_rgb", False)),
        exact=exact,
        shortest_edge=edge,
        resample=_resample(document),
        crops=crops,
        rescale_factor=float(document.get("rescale_factor", 1 / 255)) if rescaled else None,
        mean=_per_channel(document, "image_mean", channels) if normalized else None,
        std=_per_channel(document, "image_std", channels) if normalized else None,
        reverse_channels=reverses,
    )


def _family(document: Mapping[str, Any]) -> str:
    name = document.get("image_processor_type") or document.get("feature_extractor_type") or "ViTImageProcessor"
    family = str(name)
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        family = family.removesuffix(suffix)
    known = PLAIN_PROCESSORS + CROP_PCT_PROCESSORS
    if family not in known:
        raise ValueError(f"image_processor_type: got {name}, expected one of {', '.join(known)} (ImageProcessor)")
    return family


def _sizes(document: Mapping[str, Any], family: str) -> tuple[Size | None, int | None, tuple[Size, ...]]:
    """The exact size or the shortest edge to resize to, and the crops that follow."""
    exact, edge = None, None
    crops: tuple[Size, ...] = ()
    if document.get("do_resize", "size" in document):
        size = document.get("size")
        if isinstance(size, int):
            size = {"height": size, "width": size} if family in _SQUARE_PROCESSORS else {"shortest_edge": size}
        if isinstance(size, dict) and set(size) == {"height", "width"}:
            exact = _positive(size["height"], "size.height"), _positive(size["width"], "size.width")
        elif isinstance(size, dict) and set(size) == {"shortest_edge"}:
            edge = _positive(size["shortest_edge"], "size.shortest_edge")
        else:
            raise ValueError(f"size: got {size!r}, expected height and width, or shortest_edge")
        if family in CROP_PCT_PROCESSORS:
            if edge is None:
                raise ValueError(f"size: got {size!r}, expected shortest_edge, as {family} has it")
            if edge >= 384:
                exact, edge = (edge, edge), None
            else:
                crops = ((edge, edge),)
                edge = int(edge / float(document.get("crop_pct") or 224 / 256))
    if document.get("do_center_crop"):
        crop = document.get("crop_size")
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        if not isinstance(crop, dict) or set(crop) != {"height", "width"}:
            raise ValueError(f"crop_size: got {crop!r}, expected height and width")
        crops += ((_positive(crop["height"], "crop_size.height"), _positive(crop["width"], "crop_size.width")),)
    return exact, edge, crops


def _positive(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key}: got {value!r}, expected a whole number of at least 1")
    return value


def _resample(document: Mapping[str, Any]) -> int:
    value = document.get("resample", 2)
    known = [int(filter_) for filter_ in Image.Resampling]
    if value not in known:
        raise ValueError(f"resample: got {value!r}, expected one of {known}, the numbers of Pillow's filters")
    return int(value)


def _per_channel(document: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    value = document.get(key)
    values = [value] * channels if isinstance(value, int | float) else value
    if not isinstance(values, list) or len(values) != channels or not all(isinstance(x, int | float) for x in values):
        raise ValueError(f"{key}: got {value!r}, expected {channels} numbers")
    if key == "image_std" and 0 in values:
        raise ValueError(f"image_std: got {value!r}, expected numbers other than 0")
    return tuple(float(x) for x in values)
