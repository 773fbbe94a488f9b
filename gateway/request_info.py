"""What is known of one request beside its body; written at the door, read by logs, metrics and the audit."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from gateway.errors import GatewayError

STATE = "conch.request"


@dataclass(slots=True)
class Record:
    """What came of a request, filled in on the way: the one mutable part, for whoever writes it down in the end.

    ``model`` is as it was asked for; ``answered_by`` and ``version`` are who answered, as Triton names them.
    ``first_token_at_s`` is on the monotonic clock; ``cache`` is "", "hit", "miss" or "shared". ``headers`` go with the
    answer, whatever it is. ``contents`` is the body's beginning, where the audit log is to hold it.
    """

    key_id: str = ""
    model: str = ""
    answered_by: str = ""
    version: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    first_token_at_s: float | None = None
    cache: str = ""
    refused: str = ""
    admitted: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    contents: bytes = b""


@dataclass(slots=True)
class RequestInfo:
    """One request. Times are on the monotonic clock, in seconds; ``deadline_s`` is when the answer is due.

    ``sticky_key`` keeps its requests on one side of a canary. ``version`` and ``fallback`` are what headers asked for.
    ``receive`` is how the door learns that the client is gone; None where nobody is to be watched.
    """

    id: str
    route: str
    started_s: float
    deadline_s: float
    traceparent: str = ""
    tracestate: str = ""
    sticky_key: str | None = None
    version: str = ""
    may_fall_back: bool = True
    receive: Receive | None = None
    record: Record = field(default_factory=Record)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; below 0 when it has passed."""
        return self.deadline_s - time.monotonic()


def new_info(route: str = "", timeout_s: float = 60.0, **known: Any) -> RequestInfo:
    """A request of our own making: probes, tests."""
    now = time.monotonic()
    return RequestInfo(uuid.uuid4().hex, route, now, now + timeout_s, **known)


async def request_info(request: Request) -> RequestInfo:
    """The request's info, put there by `gateway.entry.Entry`; a dependency, and a plain function."""
    info: RequestInfo = request.scope[STATE]
    return info


async def whole_body(request: Request) -> bytes:
    """The body of a request that nobody has read yet; Starlette's own goes through two generators for it.

    Raises: ClientDisconnect.
    """
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def timeout_header(text: str, longest_s: float) -> float:
    """The seconds in X-Request-Timeout, at most ``longest_s``. Raises: GatewayError 400."""
    try:
        asked = float(text)
    except ValueError:
        asked = -1.0
    if not 0 < asked < float("inf"):
        raise GatewayError("X-Request-Timeout is no time", got=text[:40], expected="seconds above 0", param="timeout")
    return min(asked, longest_s)


Info = Annotated[RequestInfo, Depends(request_info)]
