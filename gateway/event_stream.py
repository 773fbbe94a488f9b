"""Server-sent events, whose source is closed when the answer ends, however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """The answer that ``events`` are; ``source`` is what they are made of.

    Starlette leaves its iterator as it is when the client goes while an event is on its way to it, as it does with one
    that does not read: the work behind it would go on until the garbage is collected.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], source: AsyncGenerator[Any, None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            await self._source.aclose()  # where no event was sent, the events have not begun, and close nothing
