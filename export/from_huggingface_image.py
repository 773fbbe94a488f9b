"""Image classifiers of Hugging Face as pipelines: image_preprocess, the model as one graph, classify."""

from __future__ import annotations

from conch.errors import ExportError
from export.from_huggingface_checkpoint import Checkpoint
from export.options import ExportOptions
from export.source import Source


def load_image_classification(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """An image classifier: `image` -> `label`, `score`, `scores`. Raises: ExportError."""
    raise ExportError("image classifiers cannot be exported yet", where=checkpoint.folder)
