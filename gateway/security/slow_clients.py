"""Clients that are slow on purpose, or broken: how long each connection may dawdle before it is closed.

uvicorn itself bounds only the pause between two requests. Connections are looked at once a second, all at a time: a
timer of its own for each request would cost every fast one.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import weakref

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.one_write import OneWrite

log = logging.getLogger("conch.gateway")

LOOK_EVERY_S = 1.0
# From the first byte of a connection or request to the end of its headers.
HEADERS_WITHIN_S = 10.0
HEADERS_MAX_BYTES = 64 * 1024
# A body may take this long, and longer while it comes at this pace.
BODY_GRACE_S = 10.0
BODY_BYTES_PER_SECOND = 1024
# A client that takes nothing of what waits for it: a buffer of ours and its own are full.
READS_WITHIN_S = 30.0
OPEN_FILES = 65_536

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# The servers whose connections are looked at now.
_looked_after: weakref.WeakSet[ServerState] = weakref.WeakSet()


def allow_many_connections() -> None:
    """Raise this process's soft limit of open files, often 1,024: a connection is a file, and slow clients keep it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also knows since when its client has owed something.

    ``owes_since_s`` is on the loop's clock, None while it is our turn; ``in_headers`` says what is owed.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and owes a request."""
        super().connection_made(OneWrite(transport, self.loop))  # type: ignore[arg-type]
        self.owes_since_s: float | None = self.loop.time()
        self.in_headers = True
        self.came_bytes = 0
        self.stuck_since_s: float | None = None
        self.closing_since_s: float | None = None
        if self.server_state not in _looked_after:
            _looked_after.add(self.server_state)
            self.loop.call_later(LOOK_EVERY_S, _look, self.server_state, self.loop)

    def data_received(self, data: bytes) -> None:
        """Some of it came."""
        super().data_received(data)
        self.came_bytes += len(data)
        if self.in_headers and self.came_bytes > HEADERS_MAX_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.owes_since_s = self.loop.time()
        self.in_headers = True
        self.came_bytes = 0

    def on_headers_complete(self) -> None:
        """The headers are there; the body is owed."""
        self.in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is there; between requests, uvicorn's own keep-alive timeout holds."""
        self.owes_since_s = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self.stuck_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self.stuck_since_s = None
        super().resume_writing()

    def fault(self, now_s: float) -> str | None:
        """Why the connection is to be closed; None while its client behaves."""
        if self.stuck_since_s is not None and now_s - self.stuck_since_s > READS_WITHIN_S:
            return "it does not read what it asked for"
        if self.transport.is_closing():  # what is left to send keeps it open
            if self.closing_since_s is None:
                self.closing_since_s = now_s
            return "it does not read to the end" if now_s - self.closing_since_s > READS_WITHIN_S else None
        if self.owes_since_s is None:
            return None
        owed_s = now_s - self.owes_since_s
        if self.in_headers:
            return "its headers do not come" if owed_s > HEADERS_WITHIN_S else None
        # It waits for us: what it sent is not taken yet, or it asked whether to send.
        if self.flow.read_paused or (self.cycle is not None and self.cycle.waiting_for_100_continue):
            self.owes_since_s = now_s
            self.came_bytes = 0
            return None
        if owed_s > BODY_GRACE_S + self.came_bytes / BODY_BYTES_PER_SECOND:
            return "its body does not come"
        return None


def _look(state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
    if state.connections:
        loop.call_later(LOOK_EVERY_S, _look, state, loop)
    else:
        _looked_after.discard(state)
    now_s = loop.time()
    for connection in list(state.connections):
        if isinstance(connection, ImpatientProtocol) and (fault := connection.fault(now_s)) is not None:
            log.info("closed the connection of %s: %s", connection.client, fault)
            connection.transport.abort()  # at once: a buffer that nobody reads would never be flushed
