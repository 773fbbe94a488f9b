"""The outermost layer: gives every request its id and deadline, and reports how it ended. Pure ASGI, for speed.

A caller may say, with headers:

    X-Request-Id            its own id for the request, for logs; the answer has it, or one of ours
    X-Request-Timeout       seconds until it gives up, at most the setting ``timeout_s``
    X-Model-Version         the version to ask
    X-Sticky-Key            requests with one key meet one version while a canary has its share
    X-Fallback: never       no other model may answer
    traceparent, tracestate its trace, which Triton joins
"""

from __future__ import annotations

import logging
import random
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import CLIENT_CLOSED, GatewayError, error_response, known_error, unexpected
from gateway.gateway import Gateway
from gateway.observe import access_log, logs
from gateway.request_info import STATE, RequestInfo, timeout_header

log = logging.getLogger("conch.gateway")

# What a caller may choose as an id goes into logs and headers as it is.
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Entry:
    """ASGI middleware: `RequestInfo` in, X-Request-Id out, one record at the end."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        timeout_s = self._gateway.settings.timeout_s
        status = CLIENT_CLOSED  # until an answer begins, the client may be gone
        begun = ended = False

        async def answer(message: Message) -> None:
            nonlocal status, begun, ended
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *info.record.headers]
            else:
                ended = not message.get("more_body", False)
            await send(message)

        info = RequestInfo(
            request_id,
            scope["path"],
            started_s,
            started_s + timeout_s,
            traceparent=headers.get(b"traceparent", b"").decode("latin-1"),
            tracestate=headers.get(b"tracestate", b"").decode("latin-1"),
            sticky_key=headers[b"x-sticky-key"].decode("latin-1") if b"x-sticky-key" in headers else None,
            version=headers.get(b"x-model-version", b"").decode("latin-1"),
            may_fall_back=headers.get(b"x-fallback", b"") != b"never",
            receive=receive,
        )
        scope[STATE] = info
        logs.current_request.set(request_id)
        try:
            if b"x-request-timeout" in headers:
                asked_s = timeout_header(headers[b"x-request-timeout"].decode("latin-1"), timeout_s)
                info.deadline_s = started_s + asked_s
            await self._app(scope, receive, answer)
        except Exception as error:
            known = known_error(error)
            if begun and (_is_gone(known) or _is_gone(error.__cause__)):
                return  # a stream whose client went: nobody is there to be told
            if known is None:
                log.exception("the gateway failed")
            if ended:
                return
            if begun:
                raise  # the connection is cut: half an answer must not look like a whole one
            await error_response(known or unexpected(request_id))(scope, receive, answer)
        finally:
            seconds = time.monotonic() - started_s
            info.route = access_log.route_of(scope)
            access_log.write(scope, info, status, seconds)
            self._gateway.metrics.finished(info, status, seconds)
            self._gateway.audit.finished(info, status, seconds)


def _is_gone(error: BaseException | None) -> bool:
    return isinstance(error, GatewayError) and error.status == CLIENT_CLOSED
