"""Bodies over the limit are refused while they arrive, whether they say their length or come in chunks. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError, error_response


class _TooLarge(Exception):
    """Unwinds whoever was reading the body; what it answers is thrown away."""


class BodyLimit:
    """ASGI middleware: 413 and a closed connection, with no more than the limit read.

    A body that says its length is refused unread. The connection closes, since what the client still sends would have
    to be read to get to its next request.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = _length(scope)
        if length is None:
            await self._counted(scope, receive, send)
        elif length > self._limit_bytes:
            await self._refuse(scope, receive, send)
        else:  # the server below reads no more than the length that was said
            await self._app(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_bytes = 0
        over = begun = False

        async def count() -> Message:
            nonlocal read_bytes, over
            message = await receive()
            if message["type"] == "http.request":
                read_bytes += len(message.get("body", b""))
                if read_bytes > self._limit_bytes:
                    over = True
                    raise _TooLarge
            return message

        async def answer(message: Message) -> None:
            nonlocal begun
            if over and not begun:
                return  # a framework that caught the exception says "error in the body": the limit's answer follows
            begun = True
            await send(message)

        try:
            await self._app(scope, count, answer)
        except _TooLarge:
            if begun:
                raise
        if over and not begun:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = GatewayError(
            "the body is too large",
            status=413,
            code="request_too_large",
            expected=f"at most {self._limit_bytes} bytes",
            headers={"Connection": "close"},
        )
        await error_response(error)(scope, receive, send)


def _length(scope: Scope) -> int | None:
    """The body's length in bytes: 0 where there is none, None where it comes in chunks of unknown number."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)
    return length
