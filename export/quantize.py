"""Lower the precision of an ONNX file: fp16, or int8 with scales found while serving or beforehand.

int8 keeps weights in 8 bits with a scale for each channel. Dynamic: activations get their scale in each request, from
its own values; it takes no data and loses least. Static, with --calibration: scales are fixed beforehand on real data,
which saves work in each request and suits convolutions, which ONNX Runtime does not quantize well dynamically.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from conch.tensor_spec import Array
from export import read_samples
from export.options import ExportOptions
from export.quiet import quiet
from export.replace_file import rewriting, total_bytes
from export.source import Source
from export.to_onnx import ONE_FILE_BYTES


def quantize(path: Path, source: Source, options: ExportOptions) -> None:
    """Convert an ONNX file in place to ``options.precision``. Raises: ExportError."""
    calibration = _calibration(source, options)
    _forget_shapes(path)
    try:
        with quiet(), rewriting(path) as new:
            if options.precision == "fp16":
                _to_fp16(path, new)
            elif calibration:
                _to_static_int8(path, new, calibration)
            else:
                _to_dynamic_int8(path, new)
    except (ExportError, OSError):
        raise
    except Exception as error:  # onnx, onnxruntime and protobuf raise unrelated classes
        raise ExportError(
            f"the graph could not be converted to {options.precision}",
            got=f"{type(error).__name__}: {error}",
            fix="export with --precision fp32",
        ) from error


def _calibration(source: Source, options: ExportOptions) -> list[dict[str, Array]]:
    if options.calibration is None:
        return []
    if source.read_samples is not None:
        return [dict(sample) for sample in source.read_samples(options.calibration)]
    return read_samples.fit(read_samples.read(options.calibration), source.signature, options.calibration)


def _forget_shapes(path: Path) -> None:
    """Drop the notes on inner shapes, which the tools infer again.

    torch notes its weights' shapes too, the quantizer turns Gemm's weights over without mending them, and shape
    inference then fails on the contradiction (onnxruntime 1.31).
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def _to_fp16(path: Path, new: Path) -> None:
    """Half-precision weights and sums; inputs and outputs keep their type, so that clients see no difference."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)
    onnx.save(model, str(new), save_as_external_data=total_bytes(path) > 2 * ONE_FILE_BYTES)


def _to_dynamic_int8(path: Path, new: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path,
        new,
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=total_bytes(path) > ONE_FILE_BYTES,
    )


def _to_static_int8(path: Path, new: Path, samples: Sequence[dict[str, Array]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        """Hands the samples to the calibrator one by one."""

        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> Any:
            return next(self._samples, None)

    quantize_static(
        path,
        new,
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=total_bytes(path) > ONE_FILE_BYTES,
    )
