"""Let ONNX Runtime rewrite the graph once, at export, instead of at every load.

The fusions are those of its CPU provider: Gelu, DynamicQuantizeMatMul and their like, in operators that the releases of
our table have had for long. ONNX Runtime does the same when it loads a file; what is gained is time at each load, and
the choice of what not to fuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from export.options import ExportOptions
from export.quiet import quiet
from export.replace_file import rewriting
from export.source import Source

# On CPUs the fused kernel was slower than the Add and the LayerNormalization that it replaces, in onnxruntime 1.31's
# own profile of int8 MiniLM. GPU providers fuse it at load.
SLOWER_FUSIONS = ("SkipLayerNormFusion",)


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
            onnxruntime.InferenceSession(
                str(path), session, providers=["CPUExecutionProvider"], disabled_optimizers=list(SLOWER_FUSIONS)
            )
            _drop_unused_domains(new)
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ExportError(
            "ONNX Runtime could not optimize the graph", got=str(error).strip(), fix="leave --optimize out"
        ) from error


def _drop_unused_domains(path: Path) -> None:
    """Keep the operator sets in use: ONNX Runtime names all it knows, and an older release may not know them."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    used = {node.domain for node in _nodes(model.graph)} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, str(path))


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of the subgraphs in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)
