"""The application's layers: a bug of ours, wherever it is, is one answer in the one shape."""

from __future__ import annotations

import logging

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from gateway.app import create_app
from gateway.openai_api import embeddings
from gateway.settings import Settings


async def broken(request: Request) -> Response:
    raise ZeroDivisionError("inside")


@pytest.mark.parametrize("path", ["/broken", "/v1/embeddings"])
async def test_a_bug_is_answered_with_the_requests_id(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short = next(route for route in embeddings.router.routes if getattr(route, "path", "") == "/v1/embeddings")
    monkeypatch.setattr(short, "endpoint", broken)
    app = create_app(Settings())
    app.add_route("/broken", broken, methods=["POST"])
    with caplog.at_level(logging.ERROR):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            answer = await client.post(path, json={}, headers={"X-Request-Id": "id-7"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "internal_error")
    assert "id-7" in error["message"]
    assert "inside" not in answer.text
    assert answer.headers["x-request-id"] == "id-7"
    assert "ZeroDivisionError: inside" in caplog.text
