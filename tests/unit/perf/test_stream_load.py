"""Streams counted from bytes, however these are cut, and what is made of the counts."""

from __future__ import annotations

import math
import struct

import pytest

from conch.errors import ClientError
from perf.contenders.generation_work import work
from perf.grpc_load import DATA, END_STREAM, HEADERS, SETTINGS, frame
from perf.stream_load import GrpcStreamExchange, Log, SseExchange, Stream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


EVENTS = b"".join(chunk(b'data: {"text": "%d"}\n\n' % number) for number in range(5))
ENDED = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def feed(exchange: SseExchange | GrpcStreamExchange, data: bytes, size: int) -> list[bool | None]:
    """What an exchange says to data that arrives in pieces of a size."""
    return [exchange.receive(data[at : at + size]) for at in range(0, len(data), size)]


class TestEvents:
    def exchange(self, log: Log) -> SseExchange:
        exchange = SseExchange([b"POST"], 0, log, [10])
        exchange.begin()
        return exchange

    @pytest.mark.parametrize("size", [1, 3, 7, 16, 1000])
    def test_every_event_is_counted_once(self, size: int) -> None:
        log = Log()
        said = feed(self.exchange(log), HEAD + EVENTS + ENDED, size)
        assert said[-1] is True
        assert set(said[:-1]) <= {None}
        assert sum(count for _, count in log.arrivals) == 5
        assert (log.texts, log.responses, log.tokens, len(log.first_tokens)) == (1, 5, 10, 1)

    def test_an_error_in_the_stream_is_a_failure(self) -> None:
        log = Log()
        failed = HEAD + EVENTS + chunk(b'data: {"error": {}}\n\n') + ENDED
        assert feed(self.exchange(log), failed, 1000) == [False]
        assert log.texts == 0

    def test_texts_follow_each_other(self) -> None:
        log = Log()
        exchange = self.exchange(log)
        feed(exchange, HEAD + EVENTS + ENDED, 50)
        exchange.begin()
        feed(exchange, HEAD + EVENTS + ENDED, 50)
        assert (log.texts, len(log.first_tokens)) == (2, 2)

    def test_what_is_no_stream_ends_the_measurement(self) -> None:
        refused = b'HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n{"error"}'
        with pytest.raises(ClientError) as met:
            self.exchange(Log()).receive(refused)
        assert "404" in str(met.value.got)


def message(payload: bytes) -> bytes:
    return struct.pack("!BI", 0, len(payload)) + payload


class TestGrpc:
    def exchange(self, log: Log) -> GrpcStreamExchange:
        exchange = GrpcStreamExchange(b"", [b"asked"], 0, log, [10])
        exchange.begin()
        return exchange

    def replies(self, *payloads: bytes) -> bytes:
        data = b"".join(message(payload) for payload in payloads)
        cut = len(data) // 2
        ends = frame(HEADERS, END_STREAM, 1, b"\x00\x0bgrpc-status\x010")
        return frame(SETTINGS, 0, 0, b"") + frame(DATA, 0, 1, data[:cut]) + frame(DATA, 0, 1, data[cut:]) + ends

    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_every_message_is_counted_once(self, size: int) -> None:
        log = Log()
        said = feed(self.exchange(log), self.replies(b"\x12\x01a", b"\x12\x02bc", b"\x12\x01d"), size)
        assert said[-1] is True
        assert sum(count for _, count in log.arrivals) == 3
        assert (log.texts, log.responses, log.tokens) == (1, 3, 10)

    def test_an_error_message_is_a_failure(self) -> None:
        log = Log()
        said = feed(self.exchange(log), self.replies(b"\x12\x01a", b"\x0a\x03bad"), 1000)
        assert said == [False]
        assert log.texts == 0


class TestLog:
    def test_responses_count_as_what_they_held_on_average(self) -> None:
        log = Log(arrivals=[(0.5, 1), (1.0, 2), (1.9, 2), (2.5, 9)], first_tokens=[(0.0, 0.5), (1.0, 1.25)])
        log.texts, log.responses, log.tokens = 1, 4, 12
        result = log.result(2, 1.0, 2.0, 0)
        assert result.tokens_per_second == 12.0
        assert result.tokens_a_response == 3.0
        assert result.first_token_p50_ms == pytest.approx(250)

    def test_nothing_is_no_figure(self) -> None:
        assert math.isnan(Log().result(1, 0.0, 1.0, 0).tokens_per_second)

    def test_a_text_that_failed_counts_for_nothing_but_its_turn(self) -> None:
        log = Log()
        stream = Stream(log, [5, 7], 0)
        stream.asked()
        stream.arrived(1)
        stream.ended(False)
        assert (log.tokens, stream.length) == (0, 7)


def test_prompts_of_two_runs_have_nothing_in_common_and_lengths_have_a_mean() -> None:
    one, other = work("a", 64), work("b", 64)
    assert not set(one.prompts) & set(other.prompts)
    assert work("a", 64) == one
    assert sum(one.lengths) / len(one.lengths) == pytest.approx(64, rel=0.05)
