"""Logs: one JSON object a line, or plain text; each line with the id of the request that it belongs to.

{"time": "2026-01-01T00:00:00.000Z", "level": "info", "logger": "conch.gateway.access", "message": "request",
 "request_id": "...", "route": "/predict/{model}", "status": 200, "duration_ms": 4.2, "model": "spam", ...}
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal, TextIO

# Set by the outermost layer; what logs inside of a request finds it there.
current_request: ContextVar[str] = ContextVar("current_request", default="")

_LOGGERS = ("conch", "uvicorn", "uvicorn.error")

_WORD = re.compile(r"[\w./:{}@-]+")

# One for all lines: json.dumps would make a new one for each.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


# How this process writes its lines, and where; None until `configure`.
_written: tuple[JsonLines | TextLines, TextIO] | None = None


def configure(log_format: Literal["json", "text"] | str, level: str) -> None:
    """Write this process's logs to stderr; uvicorn's own access log is left out, `access_log` says more."""
    global _written
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonLines() if log_format == "json" else TextLines()
    handler.setFormatter(formatter)
    _written = formatter, sys.stderr
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True


def line(log: logging.Logger, level: int, message: str, fields: Mapping[str, Any]) -> None:
    """Log a line that comes with every request, and so without the records and handlers of `logging`, once configured.

    ``fields`` hold the request's id.
    """
    if _written is None:
        log.handle(log.makeRecord(log.name, level, "", 0, message, (), None, extra={"fields": fields}))
        return
    formatter, stream = _written
    with contextlib.suppress(OSError):  # nobody reads it any more: no reason to fail a request
        stream.write(formatter.line(time.time(), _level(level), log.name, message, fields) + "\n")
        stream.flush()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its message; the request's id among it."""
    fields: dict[str, Any] = dict(getattr(record, "fields", ()))
    request_id = current_request.get()
    if request_id:
        fields.setdefault("request_id", request_id)
    return fields


@functools.cache
def _level(level: int) -> str:
    return logging.getLevelName(level).lower()


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
        fields = _fields(record)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return self.line(record.created, _level(record.levelno), record.name, record.getMessage(), fields)

    def line(self, at_s: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
        """``at_s`` is in seconds since 1970."""
        clock = f"{_utc(int(at_s))}.{int(at_s % 1 * 1000):03d}Z"
        return _encode({"time": clock, "level": level, "logger": logger, "message": message, **fields})


class TextLines(logging.Formatter):
    """For a person: time, level, message, and the fields as name=value; what is no plain word stands as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on lines of its own."""
        line = self.line(record.created, _level(record.levelno), record.name, record.getMessage(), _fields(record))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def line(self, at_s: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
        """``at_s`` is in seconds since 1970."""
        said = "".join([f" {name}={_word(value)}" for name, value in fields.items()])
        message = message.replace("\n", "\\n")
        return f"{_local(int(at_s))}.{int(at_s % 1 * 1000):03d} {level:7} {message}{said}"


def _word(value: object) -> str:
    text = str(value)
    return text if isinstance(value, int | float) or _WORD.fullmatch(text) else _encode(value)
