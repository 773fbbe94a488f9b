"""Let ONNX Runtime rewrite the graph once, at export, instead of at every load."""

from __future__ import annotations

import os
from pathlib import Path

from conch.errors import ExportError
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source


def optimize(path: Path, source: Source, options: ExportOptions) -> None:
    """Optimize an ONNX file in place, to level "extended": fusions that hold for every CPU and GPU.

    Level "all" would also lay tensors out for this machine's vector units, and the file would load on no other.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
    Raises: ExportError.
    """
    import onnxruntime

    optimized = path.with_name("optimized.onnx")
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 4
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session.optimized_model_filepath = str(optimized)
    try:
        with quiet():
            onnxruntime.InferenceSession(str(path), session, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ExportError("ONNX Runtime could not optimize the graph", got=error, fix="leave --optimize out") from error
    os.replace(optimized, path)
