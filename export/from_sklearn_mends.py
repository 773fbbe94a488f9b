"""What skl2onnx 1.20 writes wrongly in the graph of a scikit-learn model, mended there. Tests show when it can go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def mend_sublinear_tf(graph: Any) -> None:
    """Make log(tf + 1) what scikit-learn computes: 1 + log(tf), and 0 where a word does not occur (skl2onnx 1.20)."""
    from onnx import helper, numpy_helper

    ones = {t.name for t in graph.initializer if (numpy_helper.to_array(t) == 1).all() and t.name.startswith("ones")}
    producers = {name: node for node in graph.node for name in node.output}
    wrong = [n for n in graph.node if n.op_type == "Log" and _adds_one(producers.get(n.input[0]), ones)]
    for number, node in enumerate(wrong):
        count, one = producers[node.input[0]].input
        names = [f"sublinear_{number}_{part}" for part in ("zero", "log", "sum", "occurs")]
        zero, log, total, occurs = names
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, dtype=np.float32), zero))
        mended = (
            helper.make_node("Log", [count], [log]),
            helper.make_node("Add", [log, one], [total]),
            helper.make_node("Greater", [count, zero], [occurs]),
            helper.make_node("Where", [occurs, total, zero], list(node.output)),
        )
        _replace(graph, node, mended)


def mend_scalers(graph: Any, scalers: Iterable[Any]) -> None:
    """Give scalers that compute in doubles their offset in doubles: it was rounded to floats first (skl2onnx 1.20)."""
    from onnx import TensorProto, numpy_helper

    offsets = [getattr(s, "mean_", None) if hasattr(s, "mean_") else getattr(s, "center_", None) for s in scalers]
    constants = [t for t in graph.initializer if t.data_type == TensorProto.DOUBLE]
    for offset in (o for o in offsets if o is not None):
        for tensor in constants:
            rounded = numpy_helper.to_array(tensor)
            if rounded.size == offset.size and np.array_equal(rounded.ravel(), offset.astype(np.float32)):
                tensor.CopyFrom(numpy_helper.from_array(offset.reshape(rounded.shape), tensor.name))


def _adds_one(node: Any, ones: set[str]) -> bool:
    return node is not None and node.op_type == "Add" and node.input[1] in ones


def _replace(graph: Any, node: Any, others: Sequence[Any]) -> None:
    position = next(i for i, n in enumerate(graph.node) if n is node or n == node)
    del graph.node[position]
    for offset, other in enumerate(others):
        graph.node.insert(position + offset, other)
