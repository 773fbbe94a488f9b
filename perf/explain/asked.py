"""Which requests to explain with: those that `conch perf run` would send, and how full their rows are."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clients.request import Tensor
from conch.errors import ConchError, InvalidInput
from conch.tensor_spec import Array, ModelSignature, TensorSpec
from perf.analyzer import inputs
from perf.explain.evidence import Padding
from server.rollout import answers

MASK = "attention_mask"
Tensors = Mapping[str, Array]


@dataclass(frozen=True)
class Asked:
    """The requests, one row each, and what is to be said of them."""

    requests: tuple[Tensors, ...]
    origin: str
    notes: tuple[str, ...] = ()


def choose(name: str, signature: ModelSignature, file: Path | None, repository: Path | None) -> Asked:
    """The best requests that there are: the user's file, ours for a sample, golden ones, or else made up.

    Raises: ConchError when the user's file cannot be used.
    """
    try:
        found = inputs.for_model(name, signature, file=file, repository=repository)
    except ConchError:
        if file is not None:
            raise
        note = "asked with one request made up from its signature: real ones (--inputs FILE) may take another time"
        return Asked(tuple(request.inputs for request in answers.made_up(signature)), "made up", (note,))
    note = f"asked with {len(found.steps)} inputs, {found.origin}"
    return Asked(tuple(arrays(signature, step) for step in found.steps), found.origin, (note,))


def arrays(signature: ModelSignature, step: Mapping[str, Any]) -> dict[str, Array]:
    """An input as perf_analyzer's JSON has it, as the arrays of a request with one row. Raises: InvalidInput."""
    found = {}
    for name, value in step.items():
        spec = signature.input(name)
        try:
            array = _array(spec, value)
        except (ValueError, TypeError, KeyError, struct.error) as error:
            raise InvalidInput(
                "an input cannot be read", where=name, got=error, expected=spec.describe(batched=False)
            ) from error
        found[name] = array[np.newaxis] if signature.batched else array
    return found


def tensors(signature: ModelSignature, request: Tensors) -> tuple[Tensor, ...]:
    """A request as it is sent: its arrays with the data types of the signature."""
    return tuple(Tensor(name, signature.input(name).datatype, array) for name, array in request.items())


def padding(client: Any, model: str, steps: tuple[str, ...], requests: tuple[Tensors, ...]) -> Padding | None:
    """How full the rows are, by the attention masks: of the requests, or of what the first step makes of them.

    None where there is no mask to see. ``client`` is a `clients.Client`. Raises: ClientError.
    """
    first = steps[0] if steps else model
    masks = [request[MASK] for request in requests if MASK in request]
    if not masks and steps and any(t.name == MASK for t in client.metadata(first).signature.outputs):
        masks = [client.infer(first, dict(request))[MASK] for request in requests]
    if not masks:
        return None
    return Padding(
        step=first,
        tokens=int(sum(mask.sum() for mask in masks)),
        places=sum(mask.size for mask in masks),
        widths=tuple(mask.shape[-1] for mask in masks),
    )


def _array(spec: TensorSpec, value: Any) -> Array:
    """One tensor: ``content`` and ``shape``, ``b64`` and ``shape``, or a bare list of its elements."""
    if not isinstance(value, Mapping):
        value = {"content": value}
    raw = base64.b64decode(value["b64"]) if "b64" in value else None
    if raw is None:
        flat = np.array(value["content"], dtype=object if spec.datatype == "BYTES" else spec.numpy).ravel()
    elif spec.datatype == "BYTES":
        flat = np.array(_strings(raw), dtype=object)
    elif spec.datatype == "BF16":
        flat = (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(raw, dtype=spec.numpy)
    shape = value.get("shape") or [flat.size if size == -1 else size for size in spec.dims]
    return flat.reshape(shape)


def _strings(raw: bytes) -> list[bytes]:
    """Strings, each behind its length in 4 little-endian bytes."""
    found, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        found.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return found
