"""What an ONNX graph is made of: its operators, counted, and the sizes of its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import RepositoryError


@dataclass(frozen=True)
class Weight:
    """One initializer: ONNX's name of its type, its dims, and the bytes of its values."""

    elem_type: str
    dims: tuple[int, ...]
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.elem_type} {list(self.dims)}"


@dataclass(frozen=True)
class Graph:
    """Operators by how often they stand in the graph and its subgraphs; initializers of the main graph by name.

    Operators of other domains than ONNX's own carry theirs: "com.microsoft.QAttention".
    """

    operators: Mapping[str, int]
    weights: Mapping[str, Weight]

    @property
    def size_bytes(self) -> int:
        """The bytes of all weights."""
        return sum(w.size_bytes for w in self.weights.values())


def read_graph(path: Path) -> Graph:
    """Read an ONNX file, without weights that lie in other files. Raises: RepositoryError."""
    try:
        import onnx
    except ImportError as error:
        raise RepositoryError(
            "comparing graphs needs the package onnx", where=path, fix="pip install 'conch[export]', or onnx alone"
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors and onnx's own have no base that is documented
        raise RepositoryError("the ONNX file cannot be read", where=path, got=error) from error
    operators = Counter(_operators(model.graph.node))
    for function in model.functions:
        operators.update(_operators(function.node))
    weights = {tensor.name: _weight(tensor) for tensor in model.graph.initializer}
    return Graph(dict(operators), weights)


def _operators(nodes: Any) -> Iterator[str]:
    for node in nodes:
        own = node.domain in ("", "ai.onnx")
        yield node.op_type if own else f"{node.domain}.{node.op_type}"
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):  # an unset one is an empty graph
                yield from _operators(graph.node)


def _weight(tensor: Any) -> Weight:
    import onnx

    dims = tuple(tensor.dims)
    strings = sum(len(s) for s in tensor.string_data)
    bits = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}
    elem_type = onnx.TensorProto.DataType.Name(tensor.data_type)
    if elem_type == "STRING":
        return Weight(elem_type, dims, strings)
    width = bits.get(elem_type) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return Weight(elem_type, dims, math.ceil(math.prod(dims) * width / 8))
