"""A closed loop of requests: N connections, each with one request under way, in one thread.

It shares the machine's few cores with the server it measures, so it does as little as it can: requests are rendered
before the clock starts, sockets are read as they become readable, and of an answer only its end and its status are
looked for. What is sent is an `Exchange`'s: HTTP and gRPC go through this same loop, so that both pay the same for it.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from conch.errors import ClientError, ServerUnavailable

CONNECT_TIMEOUT_S = 10.0
READ_BYTES = 1 << 18
# A server that closes connections gets new ones, but not for ever.
MOST_LOST_CONNECTIONS = 100
# Whoever was refused waits before asking again, as clients do: a flood of refusals would measure itself.
FAILURE_PAUSE_S = 0.1


@dataclass(frozen=True)
class LoadResult:
    """What one run at one number of connections gave; latencies are in milliseconds.

    ``requests``, rate and latencies are those of good answers; ``failure_p50_ms`` is the failures', NaN without any.
    ``client_cpu_share`` is what the load itself took of one core, 0 to 1, warm-up included.
    """

    connections: int
    requests: int
    failures: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu_share: float = 0.0
    failure_p50_ms: float = math.nan


class Exchange(Protocol):
    """One connection's side of a protocol, without any I/O."""

    def begin(self) -> None:
        """Put the next request into the output."""

    def output(self) -> bytes:
        """What is to be sent now; it is gone from here then."""

    def receive(self, data: bytes) -> bool | None:
        """Take what arrived: None while the answer is not whole, then whether it is a good one."""


class _Connection:
    """A socket, its exchange, and when its request was sent."""

    def __init__(self, address: tuple[str, int], exchange: Exchange) -> None:
        self.exchange = exchange
        self.sent_s = 0.0
        self.socket = socket.create_connection(address, CONNECT_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def flush(self) -> None:
        data = self.exchange.output()
        if not data:
            return
        try:
            done = self.socket.send(data)
        except BlockingIOError:
            done = 0
        if done < len(data):
            self.socket.settimeout(CONNECT_TIMEOUT_S)
            self.socket.sendall(data[done:])
            self.socket.setblocking(False)

    def ask(self) -> None:
        self.exchange.begin()
        self.sent_s = time.perf_counter()
        self.flush()


def run(
    address: tuple[str, int],
    exchange: Callable[[int], Exchange],
    connections: int,
    duration_s: float,
    warmup_s: float,
) -> LoadResult:
    """Keep ``connections`` requests under way; what ends in the warm-up does not count.

    ``exchange`` makes the n-th connection's side. Raises: ServerUnavailable when the address does not answer,
    ClientError when it keeps closing connections.
    """
    where = f"{address[0]}:{address[1]}"
    try:
        lines = [_Connection(address, exchange(number)) for number in range(connections)]
    except OSError as error:
        raise ServerUnavailable("nobody answers at the address", where=where, got=error) from error
    cpu_s, begun_s = time.process_time(), time.perf_counter()
    try:
        latencies_s, failures_s = _drive(address, exchange, lines, begun_s + warmup_s, begun_s + warmup_s + duration_s)
    except OSError as error:
        raise ServerUnavailable("the server stopped answering", where=where, got=error) from error
    finally:
        for line in lines:
            line.socket.close()
    share = (time.process_time() - cpu_s) / (time.perf_counter() - begun_s)
    p50, p99 = np.percentile(np.array(latencies_s) * 1000, [50, 99]) if latencies_s else (math.nan, math.nan)
    failed = float(np.median(failures_s)) * 1000 if failures_s else math.nan
    rate = len(latencies_s) / duration_s
    return LoadResult(connections, len(latencies_s), len(failures_s), rate, float(p50), float(p99), share, failed)


def _drive(
    address: tuple[str, int],
    exchange: Callable[[int], Exchange],
    lines: list[_Connection],
    start_s: float,
    end_s: float,
) -> tuple[list[float], list[float]]:
    """Latencies in seconds of what ended between start and end: of good answers, and of failures."""
    latencies_s: list[float] = []
    failures_s: list[float] = []
    refused: deque[tuple[float, _Connection]] = deque()  # and when each asks again
    lost = 0
    with select.epoll() as poll:
        by_descriptor = {}
        for line in lines:
            by_descriptor[line.socket.fileno()] = line
            poll.register(line.socket, select.EPOLLIN)
            line.ask()
        while (now_s := time.perf_counter()) < end_s:
            while refused and refused[0][0] <= now_s:
                refused.popleft()[1].ask()
            for descriptor, _ in poll.poll((min(refused[0][0], end_s) if refused else end_s) - now_s):
                line = by_descriptor[descriptor]
                try:
                    data = line.socket.recv(READ_BYTES)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    data = b""
                if data:
                    good = line.exchange.receive(data)
                    if good is None:
                        line.flush()
                        continue
                    done_s = time.perf_counter()
                else:
                    good, done_s, lost = False, time.perf_counter(), lost + 1
                    if lost > MOST_LOST_CONNECTIONS:
                        raise ClientError("the server keeps closing connections", where=f"{address[0]}:{address[1]}")
                    sent_s = line.sent_s
                    poll.unregister(line.socket)
                    line.socket.close()
                    del by_descriptor[descriptor]
                    fresh = _Connection(address, exchange(lost))
                    lines[lines.index(line)] = line = fresh
                    by_descriptor[line.socket.fileno()] = line
                    poll.register(line.socket, select.EPOLLIN)
                    if start_s <= done_s < end_s:
                        failures_s.append(done_s - sent_s)
                    line.ask()
                    continue
                if start_s <= done_s < end_s:
                    (latencies_s if good else failures_s).append(done_s - line.sent_s)
                if good:
                    line.ask()
                else:
                    refused.append((done_s + FAILURE_PAUSE_S, line))
    return latencies_s, failures_s
