"""When a connection's client is too slow: a protocol without a network, on a clock that the test turns."""

from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.security.slow_clients import (
    BODY_GRACE_S,
    HEADERS_MAX_BYTES,
    HEADERS_WITHIN_S,
    LOOK_EVERY_S,
    READS_WITHIN_S,
    ImpatientProtocol,
)

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"


class Clock:
    """The part of a loop that is asked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.later: list[Callable[[], Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[..., Any], *arguments: Any) -> None:
        self.later.append(lambda: call(*arguments))

    def call_soon(self, call: Callable[..., Any]) -> None:
        call()

    def create_task(self, work: Any) -> Any:
        work.close()
        return self

    def add_done_callback(self, call: Any) -> None:
        pass


class Transport:
    """What was done to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = self.aborted = False

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection:
    """One client of a server."""

    def __init__(self) -> None:
        self.clock, self.transport, self.server = Clock(), Transport(), ServerState()
        config = Config(app=lambda: None, ws="none", log_config=None)
        self.protocol = ImpatientProtocol(config, self.server, {}, self.clock)  # type: ignore[arg-type]
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def after(self, seconds: float) -> str | None:
        self.clock.now_s += seconds
        return self.protocol.fault(self.clock.now_s)


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.mark.parametrize("sent", [b"", b"P", POST, POST + b"X-More: "])
def test_headers_have_their_time(connection: Connection, sent: bytes) -> None:
    if sent:
        connection.send(sent)
    assert connection.after(HEADERS_WITHIN_S - 1) is None
    assert connection.after(2) == "its headers do not come"


def test_a_body_has_a_grace_and_then_a_pace(connection: Connection) -> None:
    connection.send(POST + b"\r\n")
    assert connection.after(BODY_GRACE_S - 1) is None
    connection.send(b"x" * 10_240)
    assert connection.after(8) is None
    assert connection.after(5) == "its body does not come"


def test_what_we_do_not_take_is_not_the_clients_delay(connection: Connection) -> None:
    connection.send(POST + b"\r\n" + b"x" * 80_000)
    assert connection.protocol.flow.read_paused
    assert connection.after(1000) is None


def test_a_client_that_asks_whether_to_send_waits_for_us(connection: Connection) -> None:
    connection.send(POST + b"Expect: 100-continue\r\n\r\n")
    assert connection.after(1000) is None


def test_a_whole_request_owes_nothing(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.after(1000) is None


def test_who_does_not_read_has_its_time(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.protocol.pause_writing()
    assert connection.after(READS_WITHIN_S - 1) is None
    connection.protocol.resume_writing()
    assert connection.after(2) is None
    connection.protocol.pause_writing()
    assert connection.after(READS_WITHIN_S + 1) == "it does not read what it asked for"


def test_an_answer_that_is_never_read_does_not_keep_a_closed_connection(connection: Connection) -> None:
    connection.transport.close()
    assert connection.after(1) is None
    assert connection.after(READS_WITHIN_S + 1) == "it does not read to the end"


def test_endless_headers_are_refused(connection: Connection) -> None:
    connection.send(POST + b"X-Long: " + b"a" * HEADERS_MAX_BYTES)
    assert connection.transport.written.startswith(b"HTTP/1.1 431 ")
    assert connection.transport.closing


def test_a_request_that_is_none_does_not_end_the_looks(connection: Connection) -> None:
    connection.send(b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(connection.clock.later) == 1
    connection.clock.now_s += LOOK_EVERY_S
    connection.clock.later.pop()()
    assert len(connection.clock.later) == 1


def test_the_looks_end_with_the_last_connection_and_begin_with_the_next(connection: Connection) -> None:
    connection.protocol.connection_lost(None)
    connection.clock.later.pop()()
    assert connection.clock.later == []
    connection.protocol.connection_made(connection.transport)  # type: ignore[arg-type]
    assert len(connection.clock.later) == 1


def test_a_look_cuts_who_is_at_fault(connection: Connection) -> None:
    connection.clock.now_s += HEADERS_WITHIN_S + 1
    connection.clock.later.pop()()
    assert connection.transport.aborted
