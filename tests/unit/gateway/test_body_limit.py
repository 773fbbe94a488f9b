"""Bodies over the limit, with and without a length, before anything reads them whole."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.security.body_limit import BodyLimit, _TooLarge

LIMIT = 100


class Client:
    """Sends a body in chunks, and counts how many of them were taken."""

    def __init__(self, *chunks: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.chunks = list(chunks)
        self.taken = 0
        self.sent: list[Message] = []
        self.headers = headers or []

    async def receive(self) -> Message:
        body = self.chunks[self.taken]
        self.taken += 1
        return {"type": "http.request", "body": body, "more_body": self.taken < len(self.chunks)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def ask(self, app: ASGIApp) -> tuple[int, dict[bytes, bytes], bytes]:
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": self.headers,
            "http_version": "1.1",
            "server": None,
            "client": None,
        }
        await BodyLimit(app, LIMIT)(scope, self.receive, self.send)
        body = b"".join(m.get("body", b"") for m in self.sent[1:])
        return self.sent[0]["status"], dict(self.sent[0]["headers"]), body


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def framework() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    return app


def framework_that_parses() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def read(body: dict[str, Any]) -> int:
        return len(body)

    return app


APPS = pytest.mark.parametrize("app", [lambda: plain, framework, framework_that_parses])
CHUNKED = [(b"transfer-encoding", b"chunked"), (b"content-type", b"application/json")]


@APPS
async def test_a_body_that_says_it_is_too_long_is_not_read(app: Callable[[], ASGIApp]) -> None:
    client = Client(b"x" * 101, headers=[(b"content-length", b"101")])
    status, headers, body = await client.ask(app())
    assert (status, client.taken, headers[b"connection"]) == (413, 0, b"close")
    assert json.loads(body)["error"]["code"] == "request_too_large"


@APPS
async def test_a_body_in_chunks_is_read_up_to_the_limit(app: Callable[[], ASGIApp]) -> None:
    client = Client(*[b"x" * 40] * 1000, headers=CHUNKED)
    status, headers, body = await client.ask(app())
    assert (status, client.taken, headers[b"connection"]) == (413, 3, b"close")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert len([m for m in client.sent if m["type"] == "http.response.start"]) == 1


@pytest.mark.parametrize("headers", [[(b"content-length", b"100")], CHUNKED])
async def test_a_body_of_just_the_limit_passes(headers: list[tuple[bytes, bytes]]) -> None:
    status, _, body = await Client(b"x" * 60, b"x" * 40, headers=headers).ask(plain)
    assert (status, body) == (200, b"100")


async def test_a_request_without_a_body_passes() -> None:
    assert (await Client(b"").ask(plain))[0] == 200


async def test_an_answer_that_has_begun_is_cut_not_finished() -> None:
    async def answers_first(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await plain(scope, receive, send)

    with pytest.raises(_TooLarge):  # the server cuts the connection
        await Client(*[b"x" * 60] * 3, headers=CHUNKED).ask(answers_first)
