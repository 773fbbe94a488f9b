"""Load over HTTP/1.1: keep-alive connections, each with one request under way. It knows nothing of what it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from perf.load_loop import LoadResult, run

__all__ = ["HttpExchange", "LoadResult", "render_request", "run_load"]

JSON = {"Content-Type": "application/json"}


def render_request(url: str, body: bytes, headers: Mapping[str, str] = JSON) -> bytes:
    """The bytes of a POST of a body to ``url``."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def run_load(
    url: str,
    bodies: Sequence[bytes],
    connections: int,
    duration_s: float,
    warmup_s: float = 1.0,
    headers: Mapping[str, str] | Sequence[Mapping[str, str]] = JSON,
) -> LoadResult:
    """Post the bodies in turn over ``connections`` connections; what ends in the warm-up does not count.

    ``headers`` are the same for all, or one each. Raises: ServerUnavailable when the address does not answer.
    """
    parts = urlsplit(url)
    each = [headers] * len(bodies) if isinstance(headers, Mapping) else headers
    requests = [render_request(url, body, own) for body, own in zip(bodies, each, strict=True)]
    address = (parts.hostname or "", parts.port or 80)
    return run(address, lambda number: HttpExchange(requests, number), connections, duration_s, warmup_s)


class HttpExchange:
    """One connection, sending the requests in turn from the ``first`` on."""

    def __init__(self, requests: Sequence[bytes], first: int) -> None:
        self._requests = requests
        self._turn = first
        self._output = b""
        self._received = b""

    def begin(self) -> None:
        """Put the next request into the output."""
        self._output = self._requests[self._turn % len(self._requests)]
        self._turn += 1

    def output(self) -> bytes:
        """What is to be sent now."""
        data, self._output = self._output, b""
        return data

    def receive(self, data: bytes) -> bool | None:
        """None while the answer is not whole, then whether its status is 200."""
        received = self._received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        if head < 0 or len(received) < _end(received, head):
            return None
        self._received = b""
        return received.startswith(b"HTTP/1.1 200")


def _end(received: bytes, head: int) -> int:
    """How many bytes the answer has whose header ends at ``head``; more than there are while that is not known."""
    lowered = received[:head].lower()
    # With the line break: Triton's binary answers have an Inference-Header-Content-Length too.
    name = b"\r\ncontent-length:"
    at = lowered.find(name)
    if at >= 0:
        stop = lowered.find(b"\r\n", at + len(name))
        return head + 4 + int(lowered[at + len(name) : stop if stop >= 0 else head])
    if b"\r\ntransfer-encoding: chunked" in lowered:
        return len(received) if received.endswith(b"\r\n0\r\n\r\n") else len(received) + 1
    return head + 4
