"""A closed-loop HTTP load generator: N keep-alive connections, each with one request under way.

It shares the machine's few cores with the server it measures, so it does as little as it can: requests are rendered
before the clock starts, and of an answer only the status and the length are read. It knows nothing of what it sends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from conch.errors import ServerUnavailable


@dataclass(frozen=True)
class LoadResult:
    """What one run at one number of connections gave; latencies are in milliseconds."""

    connections: int
    requests: int
    failures: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def render_request(url: str, body: bytes) -> bytes:
    """The bytes of a POST of a JSON body to ``url``."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def run_load(
    url: str, bodies: Sequence[bytes], connections: int, duration_s: float, warmup_s: float = 1.0
) -> LoadResult:
    """Post the bodies in turn over ``connections`` connections; what ends in the warm-up does not count.

    Raises: ServerUnavailable when the address does not answer.
    """
    return asyncio.run(_run(url, bodies, connections, duration_s, warmup_s))


async def _run(url: str, bodies: Sequence[bytes], connections: int, duration_s: float, warmup_s: float) -> LoadResult:
    requests = [render_request(url, body) for body in bodies]
    start = time.perf_counter() + warmup_s
    end = start + duration_s
    streams = [asyncio.create_task(_drive(url, requests, first, start, end)) for first in range(connections)]
    latencies_s: list[float] = []
    failures = 0
    for stream in streams:
        some, failed = await stream
        latencies_s += some
        failures += failed
    ordered_ms = np.array(latencies_s) * 1000
    p50, p99 = np.percentile(ordered_ms, [50, 99]) if latencies_s else (float("nan"), float("nan"))
    rate = len(latencies_s) / duration_s
    return LoadResult(connections, len(latencies_s), failures, rate, float(p50), float(p99))


async def _drive(url: str, requests: list[bytes], first: int, start: float, end: float) -> tuple[list[float], int]:
    """One connection's requests, from its own place in the list on; returns latencies in seconds, and failures."""
    parts = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError as error:
        raise ServerUnavailable("nobody answers at the address", where=url, got=error) from error
    latencies_s, failures, turn = [], 0, first
    try:
        while (sent := time.perf_counter()) < end:
            writer.write(requests[turn % len(requests)])
            ok = await _read_answer(reader)
            done = time.perf_counter()
            if start <= done < end:
                latencies_s.append(done - sent)
                failures += not ok
            turn += 1
    finally:
        writer.close()
    return latencies_s, failures


async def _read_answer(reader: asyncio.StreamReader) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    # With the line break: Triton's binary answers have an Inference-Header-Content-Length too.
    at = lowered.index(b"\r\ncontent-length:") + len(b"\r\ncontent-length:")
    length = int(lowered[at : lowered.index(b"\r\n", at)])
    await reader.readexactly(length)
    return head.startswith(b"HTTP/1.1 200")
