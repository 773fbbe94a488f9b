"""The audit log: one JSON line a request and an admin's act. Without prompts and inputs, unless the settings say so."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.caller import Caller
from gateway.pieces import Audit, NoAudit
from gateway.request_info import STATE, RequestInfo
from gateway.settings import Settings

log = logging.getLogger("conch.gateway")

LOOK_EVERY_S = 1.0
# Of a body; an image or a long text has no business in a log.
CONTENTS_MAX_BYTES = 16 * 1024
# Nobody does anything here, and somebody looks every second.
_QUIET = ("/health", "/ready", "/metrics")


def build(settings: Settings) -> Audit:
    """The one that the settings ask for. Raises: ConfigError."""
    return AuditLog(settings.audit_log) if settings.audit_log is not None else NoAudit()


class AuditLog:
    """Appends to a file, a line a write: several workers may share it. One that was moved away is begun anew."""

    def __init__(self, path: Path) -> None:
        from conch.errors import ConfigError

        self._path = path
        self._looked_at_s = time.monotonic()
        self._failing = False
        try:
            self._file = _open(path)
        except OSError as error:
            raise ConfigError("the audit log cannot be written", where=path, got=error.strerror) from error

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """A request was answered."""
        if info.route in _QUIET:
            return
        record = info.record
        line: dict[str, Any] = {
            "key": record.key_id,
            "route": info.route,
            "status": status,
            "ms": round(seconds * 1e3, 1),
        }
        if record.model:
            line |= {"model": record.model, "answered_by": record.answered_by, "version": record.version}
        if record.input_tokens or record.output_tokens:
            line |= {"input_tokens": record.input_tokens, "output_tokens": record.output_tokens}
        if record.cache:
            line["cache"] = record.cache
        if record.refused:
            line["refused"] = record.refused
        if record.contents:
            line["contents"] = record.contents.decode("utf-8", "replace")
        self._write(info.id, line)

    def did(self, caller: Caller, action: str, subject: str, outcome: str, info: RequestInfo) -> None:
        """An admin did something: load, unload, publish."""
        self._write(info.id, {"key": caller.key_id, "action": action, "subject": subject, "outcome": outcome})

    def _write(self, request_id: str, line: dict[str, Any]) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        text = json.dumps({"at": at, "request": request_id, **line}, ensure_ascii=False)
        try:
            self._follow()
            os.write(self._file, text.encode("utf-8", "replace") + b"\n")
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.error("the audit log %s is not written: %s", self._path, error.strerror)
            self._failing = True

    def _follow(self) -> None:
        """Begin a new file where the old was rotated away; looks once a second."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s < LOOK_EVERY_S:
            return
        self._looked_at_s = now_s
        try:
            there = os.stat(self._path).st_ino
        except FileNotFoundError:
            there = 0
        if there != os.fstat(self._file).st_ino:
            old, self._file = self._file, _open(self._path)
            os.close(old)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class AuditContents:
    """ASGI middleware: hands the beginning of each body to the audit log. Only where the settings ask for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[STATE].record

        async def overhear() -> Message:
            message = await receive()
            left = CONTENTS_MAX_BYTES - len(record.contents)
            if left > 0 and message["type"] == "http.request":
                record.contents += message.get("body", b"")[:left]
            return message

        await self._app(scope, overhear, send)
