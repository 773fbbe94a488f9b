"""What a user can ask of any export, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conch.releases import DEFAULT_TARGET

FORMATS = ("onnx", "torchscript")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class ExportOptions:
    """The options that the export commands share.

    ``max_batch_size`` 0 serves without batching. ``opset`` None takes the newest that the target loads. ``atol`` None
    takes the tolerance of the precision (see `export.parity`). ``calibration`` makes int8 static. ``trial`` loads the
    staged version in a scratch Triton before it goes into the repository.
    """

    name: str
    repository: Path = Path("model_repository")
    format: str = "onnx"
    precision: str = "fp32"
    optimize: bool = False
    opset: int | None = None
    target: str = DEFAULT_TARGET
    max_batch_size: int = 32
    instances: int = 1
    rules: Path | None = None
    samples: Path | None = None
    calibration: Path | None = None
    atol: float | None = None
    trial: bool = True
