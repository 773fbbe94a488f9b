from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.testclient import TestClient

from gateway.observe import access_log, logs
from gateway.request_info import Record, RequestInfo

SCOPE = {"type": "http", "method": "POST", "path": "/predict/spam"}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the access log writes, as JSON lines."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(logs.JsonLines().format(record))

    handler = Keep()
    access_log.log.addHandler(handler)
    access_log.log.setLevel(logging.INFO)
    yield written
    access_log.log.removeHandler(handler)
    access_log.log.setLevel(logging.NOTSET)


def test_a_line_says_who_what_and_how_long(lines: list[str]) -> None:
    record = Record(key_id="ada", model="spam@stable", answered_by="spam", version="3", output_tokens=5)
    record.first_token_at_s = 10.02
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    info = RequestInfo("r-1", "/predict/{model}", 10.0, 70.0, traceparent=trace, record=record)
    access_log.write(SCOPE, info, 200, 0.0421)
    (line,) = map(json.loads, lines)
    due = {"request_id": "r-1", "route": "/predict/{model}", "method": "POST", "status": 200, "duration_ms": 42.1}
    due |= {"key": "ada", "model": "spam", "version": "3", "output_tokens": 5, "first_token_ms": 20.0}
    due |= {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "level": "info", "logger": "conch.gateway.access"}
    assert line.items() >= due.items()
    assert "input_tokens" not in line


@pytest.mark.parametrize("route", ["/health", "/metrics", "/page/live", "/"])
def test_probes_and_the_page_are_quiet(route: str, lines: list[str]) -> None:
    access_log.write(SCOPE, RequestInfo("r-1", route, 0.0, 1.0), 200, 0.001)
    assert lines == []


def record(message: str, level: int = logging.WARNING, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("conch.gateway", level, __file__, 1, message, (), None)
    made.__dict__.update(extra)
    return made


def test_what_is_logged_inside_of_a_request_carries_its_id() -> None:
    token = logs.current_request.set("r-7")
    try:
        assert json.loads(logs.JsonLines().format(record("slow")))["request_id"] == "r-7"
        assert logs.TextLines().format(record("slow")).endswith("warning slow request_id=r-7")
    finally:
        logs.current_request.reset(token)
    assert "request_id" not in json.loads(logs.JsonLines().format(record("slow")))


@pytest.mark.parametrize("formatter", [logs.JsonLines(), logs.TextLines()])
def test_nobody_can_forge_a_line(formatter: logging.Formatter) -> None:
    forged = record("first\nsecond", fields={"model": 'spam"}\n{"status": 200'})
    assert len(formatter.format(forged).splitlines()) == 1


def test_a_traceback_stays_on_one_line_of_json() -> None:
    try:
        raise ValueError("inside")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    line = logs.JsonLines().format(made)
    assert len(line.splitlines()) == 1
    assert "ValueError: inside" in json.loads(line)["error"]


async def answer(request: Request) -> Response:
    return Response(access_log.route_of(request.scope))


def routes() -> FastAPI:
    router = APIRouter(prefix="/deep")
    router.add_api_route("/api/{model}", answer, response_model=None)
    plain = APIRouter()
    plain.add_route("/predict/{model}", answer)
    plain.add_route("/predict/{model}/batch", answer)
    plain.add_route("/v2/{path:path}", answer)
    app = FastAPI()
    app.include_router(router)
    app.include_router(plain)
    return app


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/deep/api/spam", "/deep/api/{model}"),
        ("/predict/spam", "/predict/{model}"),
        ("/predict/predict", "/predict/{model}"),
        ("/predict/batch/batch", "/predict/{model}/batch"),
        ("/predict/a%20b", "/predict/{model}"),
        ("/v2/models/spam/infer", "/v2/{path}"),
    ],
)
def test_routes_go_by_their_template(path: str, template: str) -> None:
    assert TestClient(routes()).get(path).text == template


def test_a_path_that_matches_nothing_has_none() -> None:
    assert access_log.route_of(SCOPE) == ""


@pytest.mark.parametrize("formatter", [logs.JsonLines(), logs.TextLines()])
def test_a_requests_line_is_written_as_logging_would(
    formatter: logs.JsonLines | logs.TextLines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, access_log.log.name)
    monkeypatch.setattr(logs.time, "time", lambda: 1_800_000_000.25)
    stream = io.StringIO()
    monkeypatch.setattr(logs, "_written", (formatter, stream))
    info = RequestInfo("r-1", "/predict/{model}", 0.0, 1.0, record=Record(key_id="ada", model="two words"))
    access_log.write(SCOPE, info, 429, 0.5)
    fields = {"request_id": "r-1", "method": "POST", "route": "/predict/{model}", "status": 429, "duration_ms": 500.0}
    due = record("request", logging.INFO, fields={**fields, "key": "ada", "model": "two words"})
    due.name, due.created = access_log.log.name, 1_800_000_000.25
    assert stream.getvalue() == formatter.format(due) + "\n"
