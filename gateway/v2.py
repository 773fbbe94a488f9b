"""The V2 protocol, passed through at /v2: bodies as they are, JSON and binary tensors alike, answers while they come.

A path that names a model goes where the door would send it: aliases, canaries and versions are resolved, fallbacks are
not, since another model's tensors are others. Names in answers are Triton's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections.abc import Sequence
from urllib.parse import quote

import aiohttp
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from yarl import URL

from clients.request import Operation
from conch.errors import ServerUnavailable
from gateway.caller import Caller, admitted, admitted_admin, gateway_of
from gateway.errors import GatewayError
from gateway.gateway import Gateway
from gateway.observe.traces import trace_headers
from gateway.pool import PooledServer, transport_failure
from gateway.presence import Presence
from gateway.request_info import RequestInfo, request_info

router = APIRouter()

Headers = Sequence[tuple[str, str]]

_MODEL = re.compile(r"/v2/models/(?!stats$)(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<rest>/.*)?")
_ASKS = frozenset({"/infer", "/generate", "/generate_stream"})
_TELLS = frozenset({"", "/", "/ready", "/config", "/stats"})
# What tells of the server as a whole. All else changes something, or is no caller's business.
_OPEN = re.compile(r"/v2(/health/(live|ready)|/models/stats|/repository/index)?/?")

# What the Python backend puts after a message, as it stands in JSON.
_TRACE = re.compile(rb'\\n\\nAt:\\n(?:[^"\\]|\\.)*')
_FAILED_EVENT = b'data: {"error"'

# Brackets that are no reason to look closer.
_DEEP = 1000

# Of one connection, and not to be passed on; a caller's key stays here.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"),
        *("transfer-encoding", "host", "authorization", "x-api-key", "traceparent", "tracestate", "expect"),
    }
)


class PassThrough:
    """An ASGI application, so that one block holds an exchange from its first byte to its last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request on, and its answer back."""
        request = Request(scope, receive)
        gateway, caller, info = gateway_of(request), await admitted(request), await request_info(request)
        asked = _MODEL.fullmatch(scope["path"])
        if asked is not None:
            await self._model(request, gateway, caller, info, asked, send)
            return
        if _OPEN.fullmatch(scope["path"]) is None:
            admin = await admitted_admin(request)
            gateway.audit.did(admin, request.method, scope["path"], "asked", info)
        if scope["path"].startswith("/v2/repository/index") and caller.models is not None:
            await (await _index(gateway, caller))(scope, receive, send)
            return
        if scope["path"].startswith("/v2/models/stats") and caller.models is not None:
            await (await _stats(gateway, caller, info))(scope, receive, send)
            return
        await self._exchange(request, gateway, info, scope["path"], "", send)

    async def _model(
        self,
        request: Request,
        gateway: Gateway,
        caller: Caller,
        info: RequestInfo,
        asked: re.Match[str],
        send: Send,
    ) -> None:
        """What a path asks of one model. Raises: GatewayError 403, 404, 429, 503."""
        name, version, rest = asked["model"], asked["version"] or "", asked["rest"] or ""
        info.may_fall_back = False
        if rest in _ASKS:
            await gateway.door.admit(caller, name, info)
        elif rest not in _TELLS:
            admin = await admitted_admin(request)
            gateway.audit.did(admin, request.method, request.scope["path"], "asked", info)
        model = await gateway.door.model(caller, name, request=info, version=version)
        asked_for = version or info.version or name != model.name
        pinned = asked_for or model.version not in model.versions[-1:]  # the latest by name, a canary by its version
        target = f"/v2/models/{model.name}{f'/versions/{model.version}' if pinned and model.version else ''}{rest}"
        info.record.answered_by, info.record.version = model.name, model.version
        with gateway.door.place(model.name, info) if rest in _ASKS else contextlib.nullcontext():
            await self._exchange(request, gateway, info, target, model.name, send)

    async def _exchange(
        self, request: Request, gateway: Gateway, info: RequestInfo, target: str, model: str, send: Send
    ) -> None:
        """One exchange with one server. Raises: ClientError before the answer begins; later the connection is cut."""
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP]
        headers += trace_headers(info).items()
        query = request.scope["query_string"].decode("latin-1")
        # Read whole, since the server dies of bodies in too many pieces, too (CVE-2025-23310).
        body = await request.body()
        if encoding := request.headers.get("content-encoding", ""):
            body = _unpacked(body, encoding, gateway.settings.body_bytes)
            headers = [(name, value) for name, value in headers if name not in ("content-encoding", "content-length")]
        _check(body, request.headers.get("inference-header-content-length", ""))
        path = f"{quote(target)}{'?' if query else ''}{query}"
        exchange = _streamed if target.endswith("/generate_stream") else _whole
        async with gateway.pool.server(model) as server:
            left_s = info.left_s
            try:
                with Presence(info):
                    await exchange(server, request.method, path, headers, body, left_s, send)
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                failed = transport_failure(error, server, model, left_s)
                if isinstance(failed, ServerUnavailable):
                    server.doubt(failed.what)
                raise failed from error


async def _whole(
    server: PooledServer, method: str, path: str, headers: Headers, body: bytes, left_s: float, send: Send
) -> None:
    """An exchange whose answer comes in one piece. Raises: OSError, TimeoutError."""
    own = "".join(f"{name}: {value}\r\n" for name, value in headers if name != "content-length").encode("latin-1")
    reply = await server.http.ask(method.encode(), path, body, headers=own, timeout_s=left_s)
    await _answer(send, reply.status, reply.headers, reply.body)


async def _streamed(
    server: PooledServer, method: str, path: str, headers: Headers, body: bytes, left_s: float, send: Send
) -> None:
    """An exchange whose answer comes event by event. Raises: aiohttp.ClientError, OSError, TimeoutError."""
    url = URL(f"{server.http_address}{path}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=left_s)
    asked = server.session().request(method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False)
    async with asked as reply:
        if reply.status >= 400:
            await _answer(send, reply.status, reply.raw_headers, await reply.read())
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": _passed(reply.raw_headers)})
        async for data in reply.content.iter_any():
            if data.startswith(_FAILED_EVENT):
                data = _without_trace(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """A whole answer; an error's without the stack trace."""
    body = body if status < 400 else _without_trace(body)
    kept = [(name, value) for name, value in _passed(headers) if name != b"content-length"]
    kept.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": body})


def _passed(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that are no matter of one connection."""
    lowered = [(name.lower(), value) for name, value in headers]
    return [(name, value) for name, value in lowered if name.decode("latin-1") not in _HOP]


def _unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A compressed body as it was, so that what is checked is what the server reads. Raises: GatewayError 413, 415."""
    window = {"gzip": 31, "deflate": 15}.get(encoding.lower())
    if window is None:
        raise GatewayError(
            "the body is packed in a way that is not known", status=415, got=encoding, expected="gzip, deflate"
        )
    try:
        plain = zlib.decompressobj(window).decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise GatewayError(f"the body is no {encoding}", got=error) from error
    if len(plain) > most_bytes:
        expected = f"at most {most_bytes} bytes, unpacked"
        raise GatewayError("the body is too large", status=413, code="request_too_large", expected=expected)
    return plain


def _check(body: bytes, json_size: str) -> None:
    """Refuse JSON that is nested too deep to be a request: it ends Triton's process (24.10, from about 100,000 levels).

    ``json_size`` is how much of the body is JSON, where tensors follow. Raises: GatewayError 400.
    """
    document = body[: int(json_size)] if json_size.isdecimal() else body
    if document.count(b"[") + document.count(b"{") <= _DEEP:
        return  # no deeper than it has brackets
    try:
        json.loads(document)  # has a limit of its own
    except (ValueError, RecursionError) as error:
        got = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise GatewayError("the body is no JSON that a model could be asked with", got=got) from error


def _without_trace(error: bytes) -> bytes:
    """An error of Triton's, in JSON, without the stack trace that its Python backend puts after the message."""
    return _TRACE.sub(b"", error)


async def _index(gateway: Gateway, caller: Caller) -> Response:
    """The repository index, with what the caller may use."""
    states = [s for s in await gateway.catalogue.states() if caller.may_use(s.name)]
    rows = [{"name": s.name, "version": s.version, "state": s.state, "reason": s.reason} for s in states]
    return Response(json.dumps(rows), media_type="application/json")


async def _stats(gateway: Gateway, caller: Caller, info: RequestInfo) -> Response:
    """One server's statistics, with the models that the caller may use. Raises: ClientError."""
    async with gateway.pool.server() as server:
        left_s = info.left_s
        try:
            reply = await server.http.ask(b"GET", "/v2/models/stats", timeout_s=left_s)
        except (OSError, asyncio.TimeoutError) as error:
            raise transport_failure(error, server, "", left_s) from error
    if reply.status != 200:
        raise server.refusal(reply, Operation("get_inference_statistics"), left_s)
    kept = [stats for stats in reply.json()["model_stats"] if caller.may_use(stats["name"])]
    return Response(json.dumps({"model_stats": kept}), media_type="application/json")


for path in ("/v2", "/v2/{path:path}"):
    router.add_route(path, PassThrough(), methods=["GET", "POST"], include_in_schema=False)  # type: ignore[arg-type]
