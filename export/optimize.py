"""Let ONNX Runtime rewrite the graph once, at export, instead of at every load.

The fusions are those of its CPU provider, in operators that every release of our table has; measured on
all-MiniLM-L6-v2, ONNX Runtime does the same at load time, so what is gained is mostly the time to load.
"""

from __future__ import annotations

from pathlib import Path

from conch.errors import ExportError
from export.options import ExportOptions
from export.quiet import quiet
from export.replace_file import rewriting
from export.source import Source


def optimize(path: Path, source: Source, options: ExportOptions) -> None:
    """Optimize an ONNX file in place, to level "extended": fusions that hold on every machine.

    Level "all" would also lay tensors out for this machine's vector units, and the file would suit no other.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
    Raises: ExportError.
    """
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.log_severity_level = 4
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        with quiet(), rewriting(path) as new:
            session.optimized_model_filepath = str(new)
            onnxruntime.InferenceSession(str(path), session, providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ExportError(
            "ONNX Runtime could not optimize the graph", got=str(error).strip(), fix="leave --optimize out"
        ) from error
