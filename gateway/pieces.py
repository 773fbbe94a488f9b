"""The parts that a gateway may have or not: what each does, and one of each that does nothing.

The real ones are built from the settings by ``build(settings)`` in gateway/security/{guard,limiter,audit}.py,
gateway/cache/result_cache.py and gateway/observe/metrics.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from starlette.requests import HTTPConnection

from clients.replies import Answer
from conch.tensor_spec import Array
from gateway.caller import ANONYMOUS, Caller
from gateway.request_info import RequestInfo


class Guard(Protocol):
    """Knows the keys."""

    def caller(self, connection: HTTPConnection) -> Caller:
        """Who asks, by the request's headers. Raises: GatewayError 401."""
        ...


class Limiter(Protocol):
    """Knows how much each key may ask."""

    async def admit(self, caller: Caller, model: str, info: RequestInfo) -> None:
        """Count one request. Raises: GatewayError 429 with Retry-After when it is over a limit."""
        ...

    async def charge(self, caller: Caller, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Count the tokens of an answer; what is over the limit is refused at the next `admit`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Cache(Protocol):
    """Remembers answers. ``enabled`` False: the door does not ask it."""

    enabled: bool

    async def infer(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        ask: Callable[[], Awaitable[Answer]],
        info: RequestInfo,
    ) -> Answer:
        """The answer that is known to these inputs, or the one that ``ask`` brings; equal questions at a time ask once.

        ``model`` and ``version`` are as Triton names them; the version is never empty. Notes hit or miss in the
        request's record.
        """
        ...

    async def forget(self, model: str) -> None:
        """The model's versions have changed: its answers are gone."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Metrics(Protocol):
    """Counts."""

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """A request was answered, or its client is gone (499). ``info.record`` says the rest."""
        ...

    def in_flight(self, model: str, change: int) -> None:
        """A request to a model began (+1) or ended (-1)."""
        ...


class Audit(Protocol):
    """Writes down who did what."""

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """A request was answered."""
        ...

    def did(self, caller: Caller, action: str, subject: str, outcome: str, info: RequestInfo) -> None:
        """An admin did something: load, unload, publish."""
        ...


class NoGuard:
    """Lets everybody in, as nobody in particular."""

    def caller(self, connection: HTTPConnection) -> Caller:
        """Always the anonymous caller."""
        return ANONYMOUS


class NoLimiter:
    """No limits."""

    async def admit(self, caller: Caller, model: str, info: RequestInfo) -> None:
        """Lets it pass."""

    async def charge(self, caller: Caller, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Counts nothing."""

    async def close(self) -> None:
        """Nothing is open."""


class NoCache:
    """Remembers nothing."""

    enabled = False

    async def infer(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        ask: Callable[[], Awaitable[Answer]],
        info: RequestInfo,
    ) -> Answer:
        """Asks."""
        return await ask()

    async def forget(self, model: str) -> None:
        """Nothing to forget."""

    async def close(self) -> None:
        """Nothing is open."""


class NoMetrics:
    """Counts nothing."""

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """Nothing."""

    def in_flight(self, model: str, change: int) -> None:
        """Nothing."""


class NoAudit:
    """Writes nothing."""

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """Nothing."""

    def did(self, caller: Caller, action: str, subject: str, outcome: str, info: RequestInfo) -> None:
        """Nothing."""
