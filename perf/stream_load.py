"""Load of streamed texts: N streams side by side, each asking again when its text has ended; in `load_loop`'s thread.

It shares the machine's few cores with what it measures, so a response is counted, not read. A text's length in tokens
is known before it is asked for; a response may carry several tokens, so the responses that arrived are counted as what
a response held on average.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from conch.errors import ClientError
from perf.grpc_load import DATA, GrpcExchange, header_block
from perf.http_load import HttpExchange, render_request
from perf.load_loop import Exchange, run

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

# An event with a JSON object; the one that ends a stream is `data: [DONE]`.
_EVENT = b"\ndata: {"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class StreamResult:
    """What one run at one number of streams gave.

    ``first_token_ms`` are the times to the first token of those texts that began after the warm-up; a text that begins
    while N streams run meets N - 1 others. ``tokens_a_response`` is what a response held on average.
    ``client_cpu_share`` is what the load itself took of one core, 0 to 1.
    """

    streams: int
    texts: int
    failures: int
    tokens_per_second: float
    first_token_p50_ms: float
    first_token_p99_ms: float
    tokens_a_response: float
    client_cpu_share: float = 0.0


@dataclass
class Log:
    """What all streams of a run saw; times in seconds on one clock.

    ``arrivals``: when, and how many responses. ``first_tokens``: when a text was asked for, and its first response
    came. ``responses`` and ``tokens`` are of the texts that ended.
    """

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    texts: int = 0
    responses: int = 0
    tokens: int = 0

    def result(
        self, streams: int, begin_s: float, end_s: float, failures: int, client_cpu_share: float = 0.0
    ) -> StreamResult:
        """What came between two points in time."""
        arrived = sum(count for at_s, count in self.arrivals if begin_s <= at_s < end_s)
        each = self.tokens / self.responses if self.responses else float("nan")
        waits_ms = [1000 * (first_s - asked_s) for asked_s, first_s in self.first_tokens if asked_s >= begin_s]
        p50, p99 = np.percentile(waits_ms, [50, 99]) if waits_ms else (float("nan"), float("nan"))
        rate = arrived * each / (end_s - begin_s)
        return StreamResult(streams, self.texts, failures, rate, float(p50), float(p99), each, client_cpu_share)


class Stream:
    """One stream: its texts follow each other, from the ``turn``-th of what is asked on."""

    def __init__(self, log: Log, lengths: Sequence[int], turn: int) -> None:
        self.turn = turn
        self._log, self._lengths = log, lengths
        self._asked_s = 0.0
        self._responses = 0

    @property
    def length(self) -> int:
        """How many tokens the text has."""
        return self._lengths[self.turn % len(self._lengths)]

    def asked(self) -> None:
        """A text begins."""
        self._asked_s, self._responses = time.perf_counter(), 0

    def arrived(self, count: int) -> None:
        """So many responses."""
        now_s = time.perf_counter()
        if not self._responses:
            self._log.first_tokens.append((self._asked_s, now_s))
        self._responses += count
        self._log.arrivals.append((now_s, count))

    def ended(self, good: bool) -> None:
        """The text has ended, and the next has its turn."""
        if good:
            self._log.texts += 1
            self._log.responses += self._responses
            self._log.tokens += self.length
        self.turn += 1


class SseExchange(HttpExchange):
    """One connection whose answers are server-sent events, in chunks. Raises: ClientError at any other answer."""

    def __init__(self, requests: Sequence[bytes], first: int, log: Log, lengths: Sequence[int]) -> None:
        super().__init__(requests, first)
        self._stream_log = Stream(log, lengths, first)
        self._head: bytes | None = b""
        self._tail = b""
        self._good = True

    def begin(self) -> None:
        """Put the next request into the output."""
        super().begin()
        self._head, self._tail, self._good = b"", b"", True
        self._stream_log.asked()

    def receive(self, data: bytes) -> bool | None:
        """None while the stream goes on, then whether nothing in it was an error."""
        if self._head is not None:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return None
            if not self._head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in self._head:
                got = self._head[:1000].decode(errors="replace")
                raise ClientError("the server answers with no stream", got=got, expected="text/event-stream")
            data, self._head = self._head, None
        seen = self._tail + data
        if count := seen.count(_EVENT):
            self._stream_log.arrived(count)
            self._good = self._good and b'data: {"error"' not in seen
        self._tail = seen[1 - len(_EVENT) :]
        if not seen.endswith(_LAST_CHUNK):
            return None
        self._stream_log.ended(self._good)
        return self._good


class GrpcStreamExchange(GrpcExchange):
    """One connection with one streaming call at a time: a request, and responses to the last."""

    def __init__(self, block: bytes, bodies: Sequence[bytes], first: int, log: Log, lengths: Sequence[int]) -> None:
        super().__init__(block, bodies, first)
        self._stream_log = Stream(log, lengths, first)
        self._part = b""
        self._good = True

    def begin(self) -> None:
        """Queue the next call."""
        super().begin()
        self._part, self._good = b"", True
        self._stream_log.asked()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool | None:
        if kind == DATA and stream == self._stream:
            self._messages(payload)
        done = super()._take(kind, flags, stream, payload)
        if done is None:
            return None
        self._stream_log.ended(done and self._good)
        return done and self._good

    def _messages(self, payload: bytes) -> None:
        """Count the messages that are whole now; one whose first field is error_message is a failure."""
        held, at, count = self._part + payload, 0, 0
        while len(held) >= at + 5:
            (size,) = struct.unpack_from("!I", held, at + 1)
            if len(held) < at + 5 + size:
                break
            self._good = self._good and held[at + 5 : at + 6] != b"\x0a"
            count += 1
            at += 5 + size
        self._part = held[at:]
        if count:
            self._stream_log.arrived(count)


def run_sse_load(
    url: str, bodies: Sequence[bytes], lengths: Sequence[int], streams: int, duration_s: float, warmup_s: float
) -> StreamResult:
    """Post the bodies in turn over ``streams`` connections; ``lengths`` are their texts' tokens.

    Raises: ServerUnavailable when the address does not answer.
    """
    parts = urlsplit(url)
    requests = [render_request(url, body) for body in bodies]
    return _run(
        (parts.hostname or "", parts.port or 80),
        lambda first, log: SseExchange(requests, first, log, lengths),
        len(requests),
        streams,
        duration_s,
        warmup_s,
    )


def run_grpc_stream_load(
    host: str,
    port: int,
    messages: Sequence[bytes],
    lengths: Sequence[int],
    streams: int,
    duration_s: float,
    warmup_s: float,
) -> StreamResult:
    """The same with serialized ModelInferRequests, each a stream of its own. Raises: ServerUnavailable."""
    block = header_block(f"{host}:{port}", METHOD)
    bodies = [struct.pack("!BI", 0, len(message)) + message for message in messages]
    return _run(
        (host, port),
        lambda first, log: GrpcStreamExchange(block, bodies, first, log, lengths),
        len(bodies),
        streams,
        duration_s,
        warmup_s,
    )


def _run(
    address: tuple[str, int],
    exchange: Callable[[int, Log], Exchange],
    asked: int,
    streams: int,
    duration_s: float,
    warmup_s: float,
) -> StreamResult:
    """Streams begin far from each other among what is asked: no one's prompt is in a cache by another."""
    log = Log()
    begin_s = time.perf_counter() + warmup_s
    ran = run(address, lambda number: exchange(number * asked // streams, log), streams, duration_s, warmup_s)
    return log.result(streams, begin_s, begin_s + duration_s, ran.failures, ran.client_cpu_share)
