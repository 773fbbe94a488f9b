"""Requests and tokens a key, counted by the library `limits`, in this process or in Redis.

Windows are fixed ones, and begin with a key's first request. Tokens are counted when they were made, so a window's last
answer may go over its limit, and the next request is refused: a strategy that refuses to count what is over would
forget the largest answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conch.errors import ConfigError
from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.pieces import Limiter, NoLimiter
from gateway.request_info import RequestInfo
from gateway.security.guard import KeyCaller
from gateway.security.keys import check_limits
from gateway.security.store_health import StoreHealth, redis_pool
from gateway.security.watched_file import WatchedFile
from gateway.settings import Limits, Settings

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

log = logging.getLogger("conch.gateway")

REQUESTS = "requests"
TOKENS = "tokens"


@dataclass(frozen=True)
class Window:
    """One limit of one key: ``amount`` in ``seconds``, counted under ``name``; ``text`` is for people."""

    kind: str
    name: str
    amount: int
    seconds: int
    text: str


@dataclass(frozen=True)
class Left:
    """What a window still allows, and when it begins anew (Unix time)."""

    window: Window
    amount: int
    resets_at: float


@dataclass(frozen=True)
class Windows:
    """All limits of one key."""

    requests: tuple[Window, ...]
    tokens: tuple[Window, ...]


def build(settings: Settings) -> Limiter:
    """The one that the settings ask for. Raises: ConfigError."""
    if not settings.limits.any and settings.keys_file is None:
        return NoLimiter()
    if settings.limits.any and settings.workers > 1 and settings.limits.store == "memory":
        log.warning("each of the %d workers counts for itself; Redis as their store makes them one", settings.workers)
    return KeyLimiter(settings.limits, settings.file)


class KeyLimiter:
    """Counts what each key asks, and refuses what is too much.

    ``file`` holds the settings: limits that change in it count from the next second on; the store stays.
    """

    def __init__(self, limits: Limits, file: Path | None = None) -> None:
        _check(limits)
        self._pool = None if limits.store == "memory" else redis_pool(limits.store)
        self._limits = limits
        self._file = WatchedFile(file) if file is not None else None
        self._storage, self._failures = _storage(limits.store, self._pool)
        self._health = StoreHealth("the store of the limits")
        self._windows: dict[Caller, Windows] = {}
        self._resets: dict[str, float] = {}

    async def admit(self, caller: Caller, model: str, info: RequestInfo) -> None:
        """Count one request.

        Raises: GatewayError 429 with Retry-After, or 503 when the store is gone and nothing may pass uncounted.
        """
        if self._file is not None and self._file.changed():
            self._read_again(self._file.path)
        windows = self._windows.get(caller) or self._remember(caller)
        if not windows.requests and not windows.tokens:
            return
        if not self._health.usable:
            self._go_without(info)
            return
        try:
            left = [await self._count(window, 1) for window in windows.requests]
            left += [await self._look(window) for window in windows.tokens]
        except self._failures as error:
            self._health.failed(error)
            self._go_without(info)
            return
        self._health.worked()
        now = time.time()
        info.record.headers += tuple(_headers(left, now))
        for one in left:
            if one.amount < 0:
                info.record.refused = f"limit:{one.window.kind}"
                raise _refusal(caller, one, now)

    async def charge(self, caller: Caller, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Count the tokens of an answer; never raises."""
        windows = self._windows.get(caller) or self._remember(caller)
        amount = input_tokens + output_tokens
        if not windows.tokens or amount <= 0 or not self._health.usable:
            return
        try:
            for window in windows.tokens:
                await self._count(window, amount)
        except self._failures as error:
            self._health.failed(error)

    async def close(self) -> None:
        """Close the connections to the store."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _count(self, window: Window, amount: int) -> Left:
        used = await self._storage.incr(window.name, window.seconds, amount=amount)
        if used == amount:
            self._resets[window.name] = time.time() + window.seconds
        return Left(window, window.amount - used, await self._resets_at(window))

    async def _look(self, window: Window) -> Left:
        """Where nothing is left, the next answer is one too many."""
        used = await self._storage.get(window.name)
        if not used:
            return Left(window, window.amount, time.time())
        left = window.amount - used
        return Left(window, left if left > 0 else min(left, -1), await self._resets_at(window))

    async def _resets_at(self, window: Window) -> float:
        """When a window that runs ends; asked of the store only where another gateway began it."""
        known = self._resets.get(window.name, 0.0)
        if known <= time.time():
            known = self._resets[window.name] = await self._storage.get_expiry(window.name)
        return known

    def _go_without(self, info: RequestInfo) -> None:
        if self._limits.when_store_fails == "refuse":
            info.record.refused = "limit:store"
            raise GatewayError(
                "requests cannot be counted now, and this gateway answers none uncounted",
                status=503,
                code="limits_unavailable",
                headers={"Retry-After": "1"},
            )

    def _read_again(self, file: Path) -> None:
        from gateway.read_settings import read_limits

        try:
            limits = read_limits(file)
            _check(limits)
        except ConfigError as error:
            log.error("the limits stay as they were: %s", error)
            return
        if limits != self._limits:
            log.info("read new limits from %s", file)
            self._limits = limits
            self._windows.clear()

    def _remember(self, caller: Caller) -> Windows:
        if len(self._windows) > 10_000:  # keys whose limits were changed often; the counts lie elsewhere
            self._windows.clear()
        windows = self._windows[caller] = windows_of(caller, self._limits)
        return windows


def windows_of(caller: Caller, limits: Limits) -> Windows:
    """The limits of a caller: its key's own, else those that the settings give that key, else everybody's."""
    rates = limits.keys.get(caller.key_id)
    own = caller if isinstance(caller, KeyCaller) else None

    def chosen(kind: str) -> tuple[Window, ...]:
        text: str | None = getattr(own, kind, None)
        if text is None:
            text = ";".join(getattr(rates, kind) if rates is not None else getattr(limits, kind))
        return _parse(kind, caller.key_id, text)

    return Windows(chosen(REQUESTS), chosen(TOKENS))


def _check(limits: Limits) -> None:
    """Raise ConfigError for a limit that does not parse."""
    for where, rates in [("limits", limits), *((f"limits of key {k}", r) for k, r in limits.keys.items())]:
        for kind in (REQUESTS, TOKENS):
            for text in getattr(rates, kind):
                check_limits(text, f"{where}: {kind}")


def _parse(kind: str, key_id: str, text: str) -> tuple[Window, ...]:
    from limits import parse_many

    items = parse_many(text) if text else []
    return tuple(
        Window(kind, item.key_for("conch", kind, key_id), item.amount, item.get_expiry(), str(item)) for item in items
    )


def _storage(store: str, pool: ConnectionPool | None) -> tuple[Any, tuple[type[BaseException], ...]]:
    """The library's storage, and what it raises when it is gone."""
    from limits.aio.storage import MemoryStorage, RedisStorage
    from limits.errors import StorageError

    if pool is None:
        return MemoryStorage(), (StorageError,)
    options: Any = {"connection_pool": pool}
    storage = RedisStorage(f"async+{store}", wrap_exceptions=True, implementation="redispy", **options)
    return storage, (StorageError, OSError, asyncio.TimeoutError)


def _refusal(caller: Caller, left: Left, now: float) -> GatewayError:
    wait_s = max(1, math.ceil(left.resets_at - now))
    window = left.window
    return GatewayError(
        f"rate limit reached for key {caller.key_id}: {window.kind}, {window.text}; try again in {wait_s} s",
        status=429,
        type=window.kind,
        code="rate_limit_exceeded",
        headers={"Retry-After": str(wait_s)},
    )


def _headers(left: list[Left], now: float) -> list[tuple[bytes, bytes]]:
    """As OpenAI names them; of several limits of a kind, the one with the least left."""
    headers = []
    for kind in (REQUESTS, TOKENS):
        of_kind = [one for one in left if one.window.kind == kind]
        if of_kind:
            least = min(of_kind, key=lambda one: one.amount)
            values = {
                "limit": str(least.window.amount),
                "remaining": str(max(0, least.amount)),
                "reset": duration(least.resets_at - now),
            }
            headers += [(f"x-ratelimit-{word}-{kind}".encode(), value.encode()) for word, value in values.items()]
    return headers


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: 120ms, 7s, 6m0s, 1h0m0s."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
