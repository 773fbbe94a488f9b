"""Answers in this process, up to a number of bytes; the one that was asked for longest ago goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from clients.replies import Answer

# What an entry takes beside its tensors: key, headers of arrays, bookkeeping (measured with sys.getsizeof).
_ENTRY_BYTES = 512
_ITEM_BYTES = 64


@dataclass(frozen=True)
class _Entry:
    answer: Answer
    bytes: int
    good_until_s: float


class MemoryStore:
    """A `Store`; not shared by processes."""

    def __init__(self, max_bytes: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[tuple[str, bytes], _Entry] = OrderedDict()
        self.bytes = 0

    async def get(self, model: str, key: bytes) -> Answer | None:
        """The answer, unless it is too old."""
        entry = self._entries.get((model, key))
        if entry is None:
            return None
        if self._clock() >= entry.good_until_s:
            self._drop((model, key))
            return None
        self._entries.move_to_end((model, key))
        return entry.answer

    async def put(self, model: str, key: bytes, answer: Answer) -> None:
        """Keep an answer; one that is larger than the whole store is not kept."""
        size = _size(answer)
        if (model, key) in self._entries:
            self._drop((model, key))
        if size > self._max_bytes:
            return
        self._entries[model, key] = _Entry(answer, size, self._clock() + self._ttl_s)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def forget(self, model: str) -> None:
        """Drop the answers of a model."""
        for place in [place for place in self._entries if place[0] == model]:
            self._drop(place)

    async def close(self) -> None:
        """Nothing to close."""

    def _drop(self, place: tuple[str, bytes]) -> None:
        self.bytes -= self._entries.pop(place).bytes


def _size(answer: Answer) -> int:
    total = _ENTRY_BYTES
    for array in answer.values():
        total += array.nbytes
        if array.dtype == object:
            total += sum(len(item) + _ITEM_BYTES for item in array.ravel().tolist())
    return total
