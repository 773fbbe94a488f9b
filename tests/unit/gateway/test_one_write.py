"""When the head of an answer is written: with its body, or by itself where none follows at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.one_write import OneWrite

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Connection:
    """A transport and a loop that write down what they are told."""

    def __init__(self) -> None:
        self.done: list[bytes] = []
        self.later: list[Callable[[], Any]] = []
        self.transport = OneWrite(self, self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append(b"closed")

    def call_soon(self, call: Callable[[], Any]) -> None:
        self.later.append(call)

    def comes_round(self) -> None:
        for call in self.later:
            call()
        self.later.clear()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.mark.parametrize("body", [b"body", b""])
def test_a_head_and_its_body_are_one_write(connection: Connection, body: bytes) -> None:
    connection.transport.write(HEAD)
    connection.transport.write(body)
    connection.comes_round()
    assert connection.done == [HEAD + body]


def test_a_streams_head_does_not_wait_for_the_first_event(connection: Connection) -> None:
    connection.transport.write(HEAD)
    connection.comes_round()
    connection.transport.write(b"event")
    assert connection.done == [HEAD, b"event"]


def test_a_head_is_sent_before_the_connection_closes(connection: Connection) -> None:
    connection.transport.write(HEAD)
    connection.transport.close()
    connection.comes_round()
    assert connection.done == [HEAD, b"closed"]


@pytest.mark.parametrize("data", [b"HTTP/1.1 100 Continue\r\n\r\n", b"4\r\nbody\r\n"])
def test_all_else_goes_at_once(connection: Connection, data: bytes) -> None:
    connection.transport.write(data)
    assert connection.done == [data]


def test_what_it_does_not_know_is_the_transports(connection: Connection) -> None:
    connection.is_closing = lambda: True  # type: ignore[attr-defined]
    assert connection.transport.is_closing()
