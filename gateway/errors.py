"""What went wrong, as an HTTP answer: one shape on every route, OpenAI's.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

Source: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from conch.errors import (
    ClientError,
    ConchError,
    ContextTooLong,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    RequestTooLarge,
    ServerUnavailable,
)

log = logging.getLogger("conch.gateway")

# nginx's status for it, which logs and metrics know.
CLIENT_CLOSED = 499

INVALID = "invalid_request_error"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: INVALID, 429: "rate_limit_error"}


class GatewayError(ConchError):
    """A request that is answered with an error.

    ``type``, ``code`` and ``param`` are as OpenAI's clients read them; ``headers`` go with the answer (Retry-After).
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 400,
        type: str | None = None,  # noqa: A002 - OpenAI's word
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        where: object = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, where=where, got=got, expected=expected, fix=fix)
        self.status = status
        self.type = type or _TYPES.get(status, INVALID if status < 500 else "server_error")
        self.code = code
        self.param = param
        self.headers = headers or {}

    @property
    def message(self) -> str:
        """Everything that is known, on one line."""
        parts = (("", self.where), ("got ", self.got), ("expected ", self.expected), ("", self.fix))
        return "; ".join([self.what, *(f"{word}{part}" for word, part in parts if part is not None)])


def error_body(error: GatewayError) -> dict[str, Any]:
    """The JSON document of an error; also what a stream that fails in the middle sends."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_response(error: GatewayError) -> Response:
    """The whole answer."""
    return Response(json.dumps(error_body(error)), error.status, dict(error.headers), "application/json")


# The first that an error is one of tells the answer.
_STATUSES: tuple[tuple[type[ClientError], int, str | None], ...] = (
    (ContextTooLong, 400, "context_length_exceeded"),
    (QueueFull, 429, "queue_full"),
    (InvalidInput, 400, None),
    (ModelNotFound, 404, "model_not_found"),
    (ModelNotReady, 503, "model_not_ready"),
    (RequestTooLarge, 413, "request_too_large"),
    (DeadlineExceeded, 504, "deadline_exceeded"),
    (ServerUnavailable, 503, "no_server"),
    (InferenceFailed, 500, "model_failed"),
    (ClientError, 502, None),
)

# What these say beside the bare fact speaks of addresses, and of settings that are ours.
_INSIDE = (ServerUnavailable, DeadlineExceeded)


def from_client_error(error: ClientError, *, param: str | None = None) -> GatewayError:
    """The answer that a client's failure stands for. Addresses, stack traces and our own settings stay inside."""
    status, code = next((status, code) for kind, status, code in _STATUSES if isinstance(error, kind))
    what, got, expected = error.what, error.got, error.expected
    if isinstance(error, _INSIDE) and not isinstance(error, QueueFull):
        what = "no model server answers now" if status == 503 else error.what
        got = expected = None
    if isinstance(error, InferenceFailed):  # a Python model's message goes on with its stack
        got = str(got).strip().partition("\n")[0]
    fix = None
    if isinstance(error, ModelNotFound | ModelNotReady):
        expected = None  # lists every model, also those that a key may not use
        fix = error.fix if (error.fix or "").startswith("did you mean") else None
    retry = {"Retry-After": "1"} if status in (429, 503) else None
    return GatewayError(what, status=status, code=code, param=param, headers=retry, got=got, expected=expected, fix=fix)


def unexpected(request_id: str) -> GatewayError:
    """What a caller is told of a bug of ours: nothing but how to find it in the log."""
    return GatewayError("the gateway failed", status=500, code="internal_error", where=f"request {request_id}")


def from_conch_error(error: ConchError) -> GatewayError:
    """Any error of ours as an answer."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ClientError):
        return from_client_error(error)
    return GatewayError(error.what, status=400, got=error.got, expected=error.expected, fix=error.fix)


def client_closed() -> GatewayError:
    """The client went before it had its answer; there is nobody to read this, but logs and metrics."""
    return GatewayError("the client closed the request", status=CLIENT_CLOSED, code="client_closed")


def known_error(error: BaseException) -> GatewayError | None:
    """The answer to a failure of ours, or of the framework's; None for a bug."""
    if isinstance(error, ConchError):
        return from_conch_error(error)
    if isinstance(error, HTTPException):
        return GatewayError(str(error.detail), status=error.status_code, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return client_closed()
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body") or None
        return GatewayError(f"{param or 'the body'}: {first['msg']}", status=400, param=param)
    return None


def install(app: FastAPI) -> None:
    """Answer every failure in the one shape; nothing that a caller sees holds a stack trace."""
    from gateway.request_info import STATE  # which imports this module

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(known_error(error) or unexpected(request.scope[STATE].id))

    # Exception: Starlette answers a bug, too, and raises it again, for `Entry` to log.
    for kind in (ConchError, HTTPException, ClientDisconnect, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer)
