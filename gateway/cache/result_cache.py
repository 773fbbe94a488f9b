"""The result cache: a question that was answered a moment ago, by the same version, is not asked again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from clients.replies import Answer
from conch.tensor_spec import Array
from gateway.cache.fingerprint import fingerprint
from gateway.cache.flights import Flights
from gateway.cache.memory_store import MemoryStore
from gateway.pieces import Cache, NoCache
from gateway.request_info import RequestInfo
from gateway.settings import Settings


class Store(Protocol):
    """Where answers lie; one that fails behaves as one that is empty."""

    async def get(self, model: str, key: bytes) -> Answer | None:
        """The answer, if it is there and young enough."""
        ...

    async def put(self, model: str, key: bytes, answer: Answer) -> None:
        """Keep an answer for its time."""
        ...

    async def forget(self, model: str) -> None:
        """Drop the answers of a model."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def build(settings: Settings) -> Cache:
    """The one that the settings ask for. Raises: ConfigError."""
    wanted = settings.cache
    if wanted is None:
        return NoCache()
    if wanted.store == "memory":
        return ResultCache(MemoryStore(int(wanted.max_mb * 2**20), wanted.ttl_s))
    from gateway.cache.redis_store import RedisStore

    return ResultCache(RedisStore(wanted.store, wanted.ttl_s))


class ResultCache:
    """A store, and single flight before it."""

    enabled = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights = Flights()
        # How often each model's answers were forgotten: what was asked before must not be kept afterwards.
        self._forgotten: dict[str, int] = {}

    async def infer(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        ask: Callable[[], Awaitable[Answer]],
        info: RequestInfo,
    ) -> Answer:
        """The answer that is known, or the one that ``ask`` brings. Raises: what ``ask`` raises."""
        if not version:  # nobody can say when it changes
            return await ask()
        key = fingerprint(model, version, inputs, outputs)
        found = await self._store.get(model, key)
        if found is not None:
            info.record.cache = "hit"
            return _copy(found)
        answer, joined = await self._flights.fly(
            key, lambda: self._ask_and_keep(model, version, key, ask), lambda: info.left_s
        )
        info.record.cache = "shared" if joined else "miss"
        return _copy(answer)

    async def forget(self, model: str) -> None:
        """The model's versions have changed: its answers are gone."""
        self._forgotten[model] = self._forgotten.get(model, 0) + 1
        await self._store.forget(model)

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def _ask_and_keep(self, model: str, version: str, key: bytes, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        before = self._forgotten.get(model)
        answer = await ask()
        for array in answer.values():
            array.flags.writeable = False  # it is everybody's now
        # Another version answered: the model has just changed, and nobody will ask for this key again.
        if self._forgotten.get(model) == before and answer.version in ("", version):
            await self._store.put(model, key, answer)
        return answer


def _copy(answer: Answer) -> Answer:
    return Answer(answer, answer.model, answer.version)
