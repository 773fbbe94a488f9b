"""One line of log a request: who asked which model, how it ended, how long it took. Never what was asked.

Probes, scrapes and the page's own questions are written only at level debug.
"""

from __future__ import annotations

import logging

from starlette.types import Scope

from gateway.observe import logs
from gateway.observe.traces import trace_id
from gateway.request_info import RequestInfo

log = logging.getLogger("conch.gateway.access")

_QUIET = frozenset({"/", "/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
_QUIET_FOLDER = "/page/"


def route_of(scope: Scope) -> str:
    """The template that a request's path matched, ``/predict/{model}``; empty where none did.

    Metrics and logs count by it: anybody may ask for any path.
    """
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    if "endpoint" not in scope:
        return ""
    # Starlette's plain routes leave no trace of their template: put the parameters' names back, behind the first word.
    first, slash, rest = scope["path"][1:].partition("/")
    rest = f"{slash}{rest}/"
    for name, value in scope["path_params"].items():
        rest = rest.replace(f"/{value}/", f"/{{{name}}}/", 1)
    return f"/{first}{rest[:-1]}"


def write(scope: Scope, info: RequestInfo, status: int, seconds: float) -> None:
    """Write the line of a request that is over."""
    quiet = info.route in _QUIET or info.route.startswith(_QUIET_FOLDER)
    level = logging.DEBUG if quiet else logging.INFO
    if not log.isEnabledFor(level):
        return
    record = info.record
    fields = {
        "request_id": info.id,
        "method": scope["method"],
        "route": info.route,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "key": record.key_id,
        "model": record.answered_by or record.model,
        "version": record.version,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cache": record.cache,
        "refused": record.refused,
        "trace_id": trace_id(info.traceparent),
    }
    if record.first_token_at_s is not None:
        fields["first_token_ms"] = round((record.first_token_at_s - info.started_s) * 1000, 2)
    logs.line(log, level, "request", {name: value for name, value in fields.items() if value not in ("", 0)})
