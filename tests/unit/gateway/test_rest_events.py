"""The events of /stream: what they look like on the wire, also when it fails in the middle."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from clients.generation import Piece, TokenLogprob
from gateway.errors import GatewayError
from gateway.rest.generate import _events

FIRST = Piece("one")
LOGPROBS = (TokenLogprob(" two", -0.5, 7, (TokenLogprob(" too", -0.25, 8),)),)


async def pieces(closed: list[bool], failure: Exception | None = None) -> AsyncGenerator[Piece, None]:
    try:
        yield Piece(" two\n", logprobs=LOGPROBS)
        if failure is not None:
            raise failure
        yield Piece("", "stop", 3, 2)
    finally:
        closed.append(True)


async def test_pieces_become_events_and_the_last_one_counts() -> None:
    closed: list[bool] = []
    assert [event async for event in _events(FIRST, pieces(closed))] == [
        b'data: {"text":"one"}\n\n',
        b'data: {"text":" two\\n","logprobs":[{"token":" two","logprob":-0.5,"token_id":7,'
        b'"top":[{"token":" too","logprob":-0.25,"token_id":8}]}]}\n\n',
        b'data: {"text":"","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}\n\n',
    ]
    assert closed == [True]


async def test_a_failure_in_the_middle_is_an_event_and_the_end() -> None:
    failure = GatewayError("no model server answers now", status=503, code="no_server")
    events = [event async for event in _events(FIRST, pieces([], failure))]
    assert events[-1] == (
        b'event: error\ndata: {"error":{"message":"no model server answers now","type":"server_error",'
        b'"param":null,"code":"no_server"}}\n\n'
    )
    assert len(events) == 3


async def test_a_bug_in_the_middle_is_told_nobody() -> None:
    with pytest.raises(ZeroDivisionError):
        [event async for event in _events(FIRST, pieces([], ZeroDivisionError()))]


async def test_leaving_closes_what_the_events_are_made_of() -> None:
    closed: list[bool] = []
    source = pieces(closed)
    events = _events(FIRST, source)
    await anext(events)
    await anext(events)
    await events.aclose()
    assert closed == [True]
