"""Image classifiers of Hugging Face as pipelines: image_preprocess, the model as one graph, classify.

The reference is the torch module behind transformers' own image processor, the one that works with Pillow: it needs no
torchvision, and image_preprocess computes the same pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conch.errors import ExportError
from conch.tensor_spec import Array, ModelSignature, TensorSpec
from export.from_huggingface_checkpoint import Checkpoint, check_files, load_model, provenance, weights_notes
from export.from_huggingface_classes import class_answer, classify_activation, labels
from export.from_huggingface_samples import read_images, strings
from export.from_huggingface_torch import run, writer
from export.options import ExportOptions
from export.python_parts import IMAGE, classify_part, image_part
from export.quiet import quiet
from export.source import PipelineParts, Source, Tensors


@dataclass(frozen=True)
class ImageProcessor:
    """An image processor of transformers, for encoded files."""

    inner: Any

    def read(self, files: Sequence[bytes]) -> dict[str, Array]:
        """Encoded images as pixel_values FP32 [len(files), channels, height, width]."""
        from PIL import Image, ImageOps

        images = [ImageOps.exif_transpose(Image.open(io.BytesIO(file))) for file in files]
        if not getattr(self.inner, "do_convert_rgb", False):
            images = [image.convert("RGB") for image in images]  # as transformers' pipeline does
        with quiet():
            pixels = [self.inner(image, return_tensors="np")["pixel_values"][0] for image in images]
        return {"pixel_values": np.stack(pixels).astype(np.float32)}

    def asset(self) -> bytes:
        """processor.json: the settings, with the defaults of the processor's class written out."""
        settings = json.loads(self.inner.to_json_string())
        return json.dumps(settings, indent=2, sort_keys=True).encode("utf-8") + b"\n"


class ImageLogits(torch.nn.Module):  # type: ignore[misc]
    """An image classifier, returning its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Any) -> Any:
        """Pixels [b, channels, height, width] -> logits [b, classes]."""
        return self.model(pixel_values=pixel_values).logits


def load_image_classification(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """An image classifier: `image` -> `label`, `score`, `scores`. Raises: ExportError."""
    check_files(checkpoint.folder, image_processor=True)
    model = load_model(checkpoint, "AutoModelForImageClassification", "image-classification")
    processor = open_processor(checkpoint)
    names, activation = labels(model.config), classify_activation(model.config)
    files = read_images(options.samples)
    module = ImageLogits(model).eval()
    samples = [processor.read([file]) for file in files]
    pixels = TensorSpec("pixel_values", "FP32", _one_size(samples, checkpoint))
    signature = ModelSignature((pixels,), (TensorSpec("logits", "FP32", (len(names),)),), options.max_batch_size)

    def reference(request: Tensors) -> dict[str, Array]:
        logits = run(module, processor.read(request["image"].ravel().tolist()))[0]
        return class_answer(logits, names, activation, with_label=options.rules is None)

    pipeline = PipelineParts(
        inputs=(IMAGE,),
        outputs=("label", "score", "scores"),
        requests=tuple({"image": strings(file)} for file in files),
        preprocess=image_part(processor.asset(), pixels, options),
        postprocess=classify_part(names, activation, options),
        reference=reference,
    )
    more = {"labels": len(names), "activation": activation, "processor": type(processor.inner).__name__}
    return Source(
        provenance={**provenance(checkpoint, "image-classification", model), **more},
        signature=signature,
        reference=lambda tensors: {"logits": run(module, tensors)[0]},
        samples=samples,
        write=writer(module, samples[0], signature),
        pipeline=pipeline,
        notes=weights_notes(checkpoint),
        read_samples=lambda path: [processor.read([file]) for file in read_images(path)],
    )


def open_processor(checkpoint: Checkpoint) -> ImageProcessor:
    """The checkpoint's image processor, as the class that works with Pillow. Raises: ExportError."""
    # From its module: without torchvision, transformers 5.5 has a stand-in of this name that refuses to work.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    try:
        with quiet():
            inner = AutoImageProcessor.from_pretrained(
                checkpoint.folder, use_fast=False, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # whatever a processor's class raises
        lines = str(error).strip().splitlines()
        raise ExportError(
            "the image processor cannot be loaded",
            where=checkpoint.folder,
            got=f"{type(error).__name__}: {lines[0] if lines else ''}",
            fix="save it again with image_processor.save_pretrained(DIR), by a transformers that loads it",
        ) from error
    return ImageProcessor(inner)


def _one_size(samples: Sequence[Tensors], checkpoint: Checkpoint) -> tuple[int, ...]:
    """The [channels, height, width] of every sample. Raises: ExportError when the processor makes several sizes."""
    sizes = {sample["pixel_values"].shape[1:] for sample in samples}
    if len(sizes) > 1:
        raise ExportError(
            "the image processor makes pictures of several sizes, which no batch can hold",
            where=checkpoint.folder,
            got=", ".join(str(list(size)) for size in sorted(sizes)[:3]),
            expected="one size: set do_center_crop, or an exact size, in preprocessor_config.json",
        )
    return tuple(sizes.pop())
