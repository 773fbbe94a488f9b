"""The audit log: what a line holds, and what happens when it cannot be written."""

import json
import logging
import os
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from conch.errors import ConfigError
from gateway.caller import Caller
from gateway.pieces import NoAudit
from gateway.request_info import STATE, Record, new_info
from gateway.security import audit
from gateway.security.audit import CONTENTS_MAX_BYTES, AuditContents, AuditLog
from gateway.settings import Settings


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_who_asked_what_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    record = Record(key_id="reports", model="chat@stable", answered_by="chat", version="3", input_tokens=5)
    info = new_info("/v1/chat/completions", record=record)
    AuditLog(path).finished(info, 200, 0.0125)
    (line,) = lines(path)
    assert line.pop("at").endswith("+00:00")  # type: ignore[attr-defined]
    assert line == {
        "request": info.id,
        "key": "reports",
        "route": "/v1/chat/completions",
        "status": 200,
        "ms": 12.5,
        "model": "chat@stable",
        "answered_by": "chat",
        "version": "3",
        "input_tokens": 5,
        "output_tokens": 0,
    }


def test_an_admins_act_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).did(Caller("operator"), "publish", "spam", "done: version 4", new_info())
    (line,) = lines(path)
    assert (line["key"], line["action"], line["subject"], line["outcome"]) == (
        "operator",
        "publish",
        "spam",
        "done: version 4",
    )


@pytest.mark.parametrize("route", ["/health", "/ready", "/metrics"])
def test_probes_are_no_news(tmp_path: Path, route: str) -> None:
    AuditLog(tmp_path / "audit.jsonl").finished(new_info(route), 200, 0.001)
    assert lines(tmp_path / "audit.jsonl") == []


def test_a_log_that_cannot_be_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        audit.build(Settings(audit_log=tmp_path / "no" / "audit.jsonl"))
    assert isinstance(audit.build(Settings()), NoAudit)


def test_a_log_that_fails_later_is_said_once_and_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    os.close(log._file)
    with caplog.at_level(logging.ERROR, logger="conch.gateway"):
        log.finished(new_info("/predict/x"), 200, 0.1)
        log.finished(new_info("/predict/x"), 200, 0.1)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("chunks", [[b"abc", b"def"], [b"x" * CONTENTS_MAX_BYTES, b"y" * 10]])
async def test_contents_are_the_bodys_beginning_and_the_body_stays_whole(chunks: list[bytes]) -> None:
    came: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        came.extend([(await receive())["body"] for _ in chunks])

    left = list(chunks)

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        pass

    info = new_info()
    await AuditContents(app)({"type": "http", STATE: info}, receive, send)
    assert came == chunks
    assert info.record.contents == b"".join(chunks)[:CONTENTS_MAX_BYTES]
