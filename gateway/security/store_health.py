"""Whether a store outside of this process, such as Redis, is worth asking now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from conch.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

log = logging.getLogger("conch.gateway")

# How long a request waits for a store on the network: it has its own work to do.
STORE_TIMEOUT_S = 0.25
RETRY_EVERY_S = 1.0


class StoreHealth:
    """After a failure the store is left alone for a second: a dead one must not cost every request a timeout."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._ask_again_s = 0.0
        self._failing = False

    @property
    def usable(self) -> bool:
        """Whether to ask it."""
        return not self._failing or self._clock() >= self._ask_again_s

    def failed(self, error: BaseException) -> None:
        """It did not answer; said once."""
        self._ask_again_s = self._clock() + RETRY_EVERY_S
        if not self._failing:
            log.warning("%s is gone: %s: %s", self._what, type(error).__name__, error)
        self._failing = True

    def worked(self) -> None:
        """It answered."""
        if self._failing:
            self._failing = False
            log.warning("%s is back", self._what)


def redis_pool(url: str) -> ConnectionPool:
    """Connections to Redis: impatient, and tried once more at once, since a restart of Redis cuts those that wait.

    Nothing connects yet. Raises: ConfigError.
    """
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    try:
        return ConnectionPool.from_url(
            url,
            socket_timeout=STORE_TIMEOUT_S,
            socket_connect_timeout=STORE_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise ConfigError(
            "that is no store for limits or answers", got=url, expected="memory, or redis://HOST:PORT/DB"
        ) from error
