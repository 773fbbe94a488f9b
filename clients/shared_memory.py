"""Tensors handed to a server on the same machine through /dev/shm, not through the socket.

Each request that uses it has one region to itself: its inputs, then room for those outputs whose size is known. Regions
are kept and used again, each registered once with each server; names are unique, so that clients and processes never
meet. A region whose request got no answer (a deadline, a lost server) is set aside until `close`: the server may still
write into it.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from clients.address import Address
from conch.errors import ClientError
from conch.tensor_spec import Array, ModelSignature, TensorSpec

# Below this a tensor is quicker in the message itself.
DEFAULT_MIN_BYTES = 64 * 1024

_ALIGN = 64
_SMALLEST_REGION = 64 * 1024


class Region:
    """One piece of shared memory, and the servers that know it."""

    def __init__(self, size: int) -> None:
        self.name = f"conch-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.size = size
        self.registered: set[Address] = set()
        try:
            self._memory = SharedMemory(self.name, create=True, size=size)
            assert self._memory.buf is not None
            self._bytes = self._memory.buf
        except OSError as error:
            raise ClientError(
                "no shared memory could be had",
                where="/dev/shm",
                got=error,
                expected=f"{size / 2**20:.1f} MiB",
                fix="make /dev/shm larger (docker run --shm-size), or leave shared_memory off",
            ) from error

    @property
    def key(self) -> str:
        """The name under which the system knows it."""
        return f"/{self.name}"

    def write(self, offset: int, payload: bytes | memoryview) -> None:
        """Copy bytes in."""
        self._bytes[offset : offset + len(payload)] = payload

    def read(self, offset: int, dtype: np.dtype[np.generic], shape: Sequence[int]) -> Array:
        """Copy an array out."""
        count = int(np.prod(shape, dtype=np.int64))
        view = np.frombuffer(self._bytes, dtype=dtype, count=count, offset=offset)
        return view.reshape(shape).copy()

    def unlink(self) -> None:
        """Give the memory back to the system."""
        self._memory.close()
        self._memory.unlink()


@dataclass(frozen=True)
class Place:
    """Where in a region a tensor lies."""

    region: Region
    offset: int
    size: int


class RegionPool:
    """The regions of one client. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[int, list[Region]] = defaultdict(list)
        self._all: list[Region] = []

    def take(self, size: int) -> Region:
        """A region of at least this size, for the caller alone. Raises: ClientError when /dev/shm is full."""
        rounded = max(_SMALLEST_REGION, 1 << (size - 1).bit_length())
        with self._lock:
            if self._free[rounded]:
                return self._free[rounded].pop()
            region = Region(rounded)
            self._all.append(region)
            return region

    def give_back(self, region: Region) -> None:
        """Let others use a region again: only when its request is known to have ended."""
        with self._lock:
            self._free[region.size].append(region)

    def forget_server(self, address: Address) -> None:
        """Note that a server has lost its registrations: it was started again."""
        with self._lock:
            for region in self._all:
                region.registered.discard(address)

    def drain(self) -> list[Region]:
        """Every region that there is, set aside or not; the pool is empty afterwards."""
        with self._lock:
            regions, self._all = self._all, []
            self._free.clear()
            return regions


@dataclass(frozen=True)
class Layout:
    """Offsets and sizes of the tensors that go through shared memory, and the size of the region they need."""

    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    total: int

    def places(self, region: Region) -> dict[str, Place]:
        """The tensors' places in a region."""
        return {name: Place(region, offset, self.sizes[name]) for name, offset in self.offsets.items()}


def lay_out(sizes: Mapping[str, int], min_bytes: int) -> Layout:
    """Put tensors of these sizes one after the other; those under ``min_bytes`` travel in the message."""
    large = {name: size for name, size in sizes.items() if size >= max(min_bytes, 1)}
    offsets, end = {}, 0
    for name, size in large.items():
        offsets[name] = end
        end += -(-size // _ALIGN) * _ALIGN
    return Layout(offsets, large, end)


def output_size(spec: TensorSpec, batch: int | None) -> int | None:
    """The bytes of an output, or None where they are not known before: strings, and variable dimensions."""
    if spec.datatype in ("BYTES", "BF16") or -1 in spec.dims:
        return None
    items = int(np.prod(spec.dims, dtype=np.int64)) * (1 if batch is None else batch)
    return items * spec.numpy.itemsize


def output_sizes(signature: ModelSignature, outputs: Sequence[str], batch: int | None) -> dict[str, int]:
    """The sizes of those outputs that are known; ``outputs`` empty stands for all."""
    asked = [s for s in signature.outputs if not outputs or s.name in outputs]
    known = {s.name: output_size(s, batch) for s in asked}
    return {name: size for name, size in known.items() if size is not None}
