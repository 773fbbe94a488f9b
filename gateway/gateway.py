"""What the requests of one process share: `app.state.gateway`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from conch.ledger import LEDGER_FILE
from gateway.cache import result_cache
from gateway.catalogue import Catalogue
from gateway.door import Door
from gateway.observe import metrics
from gateway.pool import Pool
from gateway.security import audit, guard, limiter
from gateway.settings import Settings

log = logging.getLogger("conch.gateway")


class Gateway:
    """Mutable state of one process, put together from the settings; nothing connects before `running`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guard = guard.build(settings)
        self.limiter = limiter.build(settings)
        self.cache = result_cache.build(settings)
        self.metrics = metrics.build(settings)
        self.audit = audit.build(settings)
        self.pool = Pool(settings.servers, settings.triton_headers)
        ledger = settings.repository / LEDGER_FILE if settings.repository and self.cache.enabled else None
        self.catalogue = Catalogue(self.pool, self.cache, ledger)
        self.door = Door(self)
        self.draining = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for the servers once, and then watch them until the block ends. That there are none is no failure."""
        await self.pool.probe()
        watch = asyncio.create_task(self.pool.watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await asyncio.gather(self.pool.close(), self.limiter.close(), self.cache.close())
