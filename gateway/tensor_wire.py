"""Tensors as bodies of Triton's HTTP protocol with binary data, and back. Pure, and quick: it runs for every request.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from clients.encoding import wire_bytes
from clients.replies import Answer
from clients.request import Tensor
from conch.tensor_spec import Array, ModelSignature, data_type

_LENGTH = struct.Struct("<I")
_BYTES = "BYTES"


def encode(
    signature: ModelSignature, inputs: Mapping[str, Array], outputs: Sequence[str], request_id: str, timeout_us: int
) -> tuple[int, bytes]:
    """The size of the JSON part, and the whole body. Raises: SignatureError for an input that the model has not.

    ``timeout_us`` is how long the request may wait in the model's queue, where its config allows to say so.
    """
    described = []
    parts = [b""]
    for name, array in inputs.items():
        datatype = signature.input(name).datatype
        raw = _strings(array) if datatype == _BYTES else wire_bytes(Tensor(name, datatype, np.ascontiguousarray(array)))
        parameters = {"binary_data_size": len(raw)}
        described.append({"name": name, "shape": array.shape, "datatype": datatype, "parameters": parameters})
        parts.append(bytes(raw))
    document: dict[str, Any] = {
        "id": request_id,
        "inputs": described,
        "parameters": {"binary_data_output": True, "timeout": timeout_us},
    }
    if outputs:
        document["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    head = orjson.dumps(document)
    parts[0] = head
    return len(head), b"".join(parts)


def _strings(array: Array) -> bytes:
    """Each item after its length; text as UTF-8."""
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        raw = item if isinstance(item, bytes) else str(item).encode()
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def decode(body: bytes, json_size: int | None) -> Answer:
    """The outputs of a 200: numbers are read-only views of the body, strings object arrays of ``bytes``.

    ``json_size`` is None where the answer says nothing of binary data.
    """
    document = orjson.loads(body if json_size is None else memoryview(body)[:json_size])
    at = len(body) if json_size is None else json_size
    found: dict[str, Array] = {}
    for output in document.get("outputs", ()):
        datatype, shape = output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = np.asarray(output["data"], dtype=data_type(datatype).numpy).reshape(shape)
            continue
        found[output["name"]] = array_of(body, at, size, datatype, shape)
        at += size
    return Answer(found, document.get("model_name", ""), document.get("model_version", ""))


def array_of(body: bytes, at: int, size: int, datatype: str, shape: Sequence[int]) -> Array:
    """One tensor of ``size`` bytes, from the byte ``at`` on."""
    if datatype == _BYTES:
        items: list[bytes] = []
        end = at + size
        while at < end:
            (length,) = _LENGTH.unpack_from(body, at)
            items.append(body[at + 4 : at + 4 + length])
            at += 4 + length
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array.reshape(shape)
    if datatype == "BF16":  # the upper half of a float32
        upper = np.frombuffer(body, "<u2", size // 2, at).astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    kind = data_type(datatype).numpy
    return np.frombuffer(body, kind, size // kind.itemsize, at).reshape(shape)
