"""Logs: one JSON object a line, or plain text; each line with the id of the request that it belongs to.

{"time": "2026-01-01T00:00:00.000Z", "level": "info", "logger": "conch.gateway.access", "message": "request",
 "request_id": "...", "route": "/predict/{model}", "status": 200, "duration_ms": 4.2, "model": "spam", ...}
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

# Set by the outermost layer; what logs inside of a request finds it there.
current_request: ContextVar[str] = ContextVar("current_request", default="")

_LOGGERS = ("conch", "uvicorn", "uvicorn.error")

_WORD = re.compile(r"[\w./:{}@-]+")

# One for all lines: json.dumps would make a new one for each.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def configure(log_format: Literal["json", "text"] | str, level: str) -> None:
    """Write this process's logs to stderr; uvicorn's own access log is left out, `access_log` says more."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its message; the request's id among it."""
    fields: dict[str, Any] = dict(getattr(record, "fields", ()))
    request_id = current_request.get()
    if request_id:
        fields.setdefault("request_id", request_id)
    return fields


@functools.lru_cache(maxsize=2)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@functools.lru_cache(maxsize=2)
def _local(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


class JsonLines(logging.Formatter):
    """One JSON object a line; line breaks inside of values are escaped, so nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        document = {
            "time": f"{_utc(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return _encode(document)


class TextLines(logging.Formatter):
    """For a person: time, level, message, and the fields as name=value; what is no plain word stands as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on lines of its own."""
        fields = "".join(f" {name}={_word(value)}" for name, value in _fields(record).items())
        message = record.getMessage().replace("\n", "\\n")
        clock = f"{_local(int(record.created))}.{int(record.msecs):03d}"
        line = f"{clock} {record.levelname.lower():7} {message}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _word(value: object) -> str:
    text = str(value)
    return text if _WORD.fullmatch(text) else _encode(value)
