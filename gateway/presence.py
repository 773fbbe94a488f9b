"""Whether a client still waits: work for one that is gone is cancelled."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from gateway.errors import client_closed
from gateway.request_info import RequestInfo

# Most answers are there sooner, and cost no listening.
LISTEN_AFTER_S = 0.05


class Presence:
    """A block whose task is cancelled when the client goes; the block then raises GatewayError 499.

    The request's body has been read by then: what the server has to tell is that the client is gone. For a block that
    goes through several tasks, as an iterator's may, `here` says which one runs now.
    """

    def __init__(self, request: RequestInfo) -> None:
        self._receive = request.receive
        self._gone = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> Presence:
        self.here()
        if self._receive is not None:
            self._timer = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._gone and kind is asyncio.CancelledError:
            uncancel = getattr(self._task, "uncancel", None)  # Python 3.11 counts
            if uncancel is not None:
                uncancel()
            raise client_closed() from None

    def here(self) -> None:
        """The task that runs now is the one to cancel."""
        self._task = asyncio.current_task()

    def _begin(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        assert self._receive is not None
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()
