"""The pre- and postprocessing models that several kinds of source share, as parts of a pipeline.

What the backends read and write stands in python_backends/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from conch.tensor_spec import ModelSignature, TensorSpec
from export.options import ExportOptions
from export.source import PythonPart

TEXT = TensorSpec("text", "BYTES", (1,))
TEXT_PAIR = TensorSpec("text_pair", "BYTES", (1,))
IMAGE = TensorSpec("image", "BYTES", (1,))


def image_part(processor_json: bytes, pixels: TensorSpec, options: ExportOptions) -> PythonPart:
    """Preprocess: an encoded file -> pixels, as a preprocessor_config.json says (with ``channels``, if it is grey)."""
    return PythonPart(
        role="preprocess",
        backend="image_preprocess",
        signature=ModelSignature((IMAGE,), (pixels,), options.max_batch_size),
        parameters={"processor": "processor.json"},
        assets={"processor.json": processor_json},
    )


def classify_part(names: Sequence[str], activation: str, options: ExportOptions) -> PythonPart:
    """Postprocess: logits -> label, score, scores. The file of --rules is added by the export's steps."""
    size = len(names)
    return PythonPart(
        role="postprocess",
        backend="classify",
        signature=ModelSignature(
            (TensorSpec("logits", "FP32", (size,)),),
            (
                TensorSpec("label", "BYTES", (1,)),
                TensorSpec("score", "FP32", (1,)),
                TensorSpec("scores", "FP32", (size,)),
            ),
            options.max_batch_size,
        ),
        parameters={"activation": activation},
        assets={"labels.txt": labels_file(names)},
    )


def labels_file(names: Sequence[str]) -> bytes:
    """labels.txt, one name a line."""
    return ("\n".join(names) + "\n").encode("utf-8")
