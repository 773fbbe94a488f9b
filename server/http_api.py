"""The few questions that starting and watching a server asks over HTTP, with the standard library alone.

A server that is being started is asked many times before tritonclient would have been imported.
Source: https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conch.errors import ServerError, ServerUnavailable

# A proxy in the environment is for the world outside, not for the server that was just started.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ModelState:
    """One line of the repository index. ``state`` is READY, LOADING, UNLOADING, UNAVAILABLE, or "" when not loaded."""

    name: str
    version: str
    state: str
    reason: str


def is_live(url: str, headers: Mapping[str, str], timeout_s: float = 2.0) -> bool:
    """Whether the server answers at all; Triton opens its ports once the models' first load is done."""
    return _is_ok(f"{url}/v2/health/live", headers, timeout_s)


def is_ready(url: str, headers: Mapping[str, str], timeout_s: float = 2.0) -> bool:
    """Whether the server calls itself ready: with strict readiness, when all its models are."""
    return _is_ok(f"{url}/v2/health/ready", headers, timeout_s)


def _is_ok(address: str, headers: Mapping[str, str], timeout_s: float) -> bool:
    request = urllib.request.Request(address, headers=dict(headers))
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def index(url: str, headers: Mapping[str, str], timeout_s: float = 10.0) -> list[ModelState]:
    """Every model that the server knows, with its state. Raises: ServerUnavailable, ServerError."""
    rows = ask(url, "/v2/repository/index", headers, body={}, timeout_s=timeout_s)
    return [
        ModelState(r["name"], r.get("version", ""), r.get("state", ""), r.get("reason", ""))
        for r in rows
        if isinstance(r, dict)
    ]


def ask(url: str, path: str, headers: Mapping[str, str], body: object = None, timeout_s: float = 10.0) -> Any:
    """The JSON answer to one request: POST where there is a body. Raises: ServerUnavailable, ServerError."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url + path, data=data, headers=dict(headers))
        with _OPENER.open(request, timeout=timeout_s) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")
        restricted = "This API is restricted" in detail
        raise ServerError(
            "the server refused a question about itself",
            where=url + path,
            got=f"HTTP {error.code}: {detail.strip()}",
            fix="this API is restricted: send its header with --header NAME:VALUE" if restricted else None,
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerUnavailable(
            "no Triton server answers",
            where=url,
            got=reason,
            fix="start one with `conch serve`, or name another with --url",
        ) from error
