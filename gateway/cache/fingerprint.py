"""What makes two questions one: model, version, outputs, and every byte of every input. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from conch.tensor_spec import Array


def fingerprint(model: str, version: str, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> bytes:
    """32 bytes. Every part goes in with its length, so that no two questions run together."""
    digest = hashlib.blake2b(digest_size=32)

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    for text in (model, version, *sorted(outputs)):
        add(text.encode())
    for name in sorted(inputs):
        array = inputs[name]
        add(name.encode())
        add(f"{array.dtype.str}{array.shape}".encode())
        if array.dtype == object:
            for item in array.ravel().tolist():
                add(item if isinstance(item, bytes) else str(item).encode())
        else:
            add(np.ascontiguousarray(array).tobytes())
    return digest.digest()
