"""Lower the precision of an ONNX file: fp16, or int8 with scales found while serving or beforehand."""

from __future__ import annotations

import os
from pathlib import Path

from conch.errors import ExportError
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source


def quantize(path: Path, source: Source, options: ExportOptions) -> None:
    """Convert an ONNX file in place to ``options.precision``. Raises: ExportError."""
    try:
        with quiet():
            if options.precision == "fp16":
                _to_fp16(path)
            else:
                _to_int8(path)
    except ExportError:
        raise
    except Exception as error:  # onnx, onnxruntime and protobuf raise unrelated classes
        raise ExportError(
            f"the graph could not be converted to {options.precision}",
            got=f"{type(error).__name__}: {error}",
            fix="export with --precision fp32",
        ) from error


def _to_fp16(path: Path) -> None:
    """Half-precision weights and sums; inputs and outputs keep their type, so that clients see no difference."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(path))
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(path))


def _to_int8(path: Path) -> None:
    """Weights of 8 bits, a scale a channel; activations are scaled while serving."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name("int8.onnx")
    quantize_dynamic(path, small, per_channel=True, weight_type=QuantType.QInt8)
    os.replace(small, path)
