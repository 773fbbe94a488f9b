"""HTTP/1.1 to one Triton: kept-alive connections, one exchange at a time on each.

Why not a client library: for a small model the gateway's own work is what a request costs, and aiohttp's client takes
twice the CPU for it, as gRPC's does. Requests and answers here are whole: no redirects, cookies, proxies or
compression, and nothing streams. httptools, which uvicorn reads requests with, reads the answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools

from clients.address import Address


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the names of its headers as they came."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def json_size(self) -> int | None:
        """How much of the body is JSON, where tensors follow; None where none do."""
        for name, value in self.headers:
            if name.lower() == b"inference-header-content-length":
                return int(value)
        return None

    def json(self) -> Any:
        """The body parsed. Raises: ValueError."""
        return json.loads(self.body)

    def message(self) -> str:
        """Triton's own words in an error."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return self.body[:500].decode("utf-8", "replace")


class _Connection(asyncio.Protocol):
    """One connection; `reply` is the answer that is waited for."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.reply: asyncio.Future[Reply] | None = None
        self.answered = False  # whether anything came for the exchange that is under way
        self._parser: Any = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def begin(self, reply: asyncio.Future[Reply], request: bytes) -> None:
        """Send a request whose answer is to come into ``reply``. Raises: ConnectionError when it is closed already."""
        self.reply = reply
        self.answered = False
        self._body = []
        self._headers = []
        try:
            self.transport.write(request)
        except RuntimeError as error:  # uvloop's, of a connection that broke since the loop last looked
            raise ConnectionResetError(str(error)) from error

    def data_received(self, data: bytes) -> None:
        if self.reply is None:
            self.transport.abort()  # nobody asked
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"no HTTP: {error}"))
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        reply, self.reply = self.reply, None
        if reply is not None and not reply.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            reply.set_result(Reply(self._parser.get_status_code(), body, self._headers))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"the connection broke{f': {exc}' if exc else ''}"))

    def _fail(self, error: Exception) -> None:
        reply, self.reply = self.reply, None
        if reply is not None and not reply.done():
            reply.set_exception(error)


class OverHttp:
    """The connections to one address, all of one event loop. ``headers`` go with every request."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._address = address
        fixed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"Host: {address.target.partition('/')[0]}\r\n{fixed}".encode()
        self._idle: list[_Connection] = []
        self._closed = False

    async def ask(
        self, method: bytes, path: str, body: bytes = b"", *, headers: bytes = b"", timeout_s: float
    ) -> Reply:
        """One exchange; ``path`` is quoted already, ``headers`` are whole lines. Leaving it closes its connection.

        Raises: OSError when nobody answers, TimeoutError.
        """
        target = f"{self._address.path}{path}".encode()
        request = b"%b %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
            method,
            target,
            self._head,
            headers,
            len(body),
            body,
        )
        while True:
            reused = bool(self._idle)
            connection = self._idle.pop() if reused else await self._connect(timeout_s)
            if reused and connection.transport.is_closing():
                continue
            try:
                return await self._exchange(connection, request, timeout_s)
            except ConnectionError:
                # Closed by the other side while it was idle: what was sent has not been read.
                if not reused or connection.answered:
                    raise

    async def _exchange(self, connection: _Connection, request: bytes, timeout_s: float) -> Reply:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        connection.begin(reply, request)
        timer = loop.call_later(max(timeout_s, 0.0), _expire, reply)
        try:
            answer = await reply
        except BaseException:
            connection.reply = None
            connection.transport.abort()
            raise
        finally:
            timer.cancel()
        if self._closed or connection.transport.is_closing():
            connection.transport.abort()
        else:
            self._idle.append(connection)
        return answer

    async def _connect(self, timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        secure = True if self._address.is_secure else None
        making = loop.create_connection(_Connection, self._address.host, self._address.port, ssl=secure)
        _, connection = await asyncio.wait_for(making, timeout_s)
        return connection

    def close(self) -> None:
        """Close the idle connections, and those in use when they are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().transport.abort()


def _expire(reply: asyncio.Future[Reply]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError("no answer in time"))
