"""Server-sent events of a text that grows: one event a piece, so what is the same in all of them is written once.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator

from starlette.responses import Response

from conch.errors import ConchError
from gateway.errors import CLIENT_CLOSED, error_body, from_conch_error
from gateway.event_stream import EventStream
from gateway.openai_api.choices import Usage

log = logging.getLogger("conch.gateway")

DONE = "data: [DONE]\n\n"

# Proxies in front must hand on each event as it comes.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Events:
    """Writes the events of one answer.

    ``with_usage`` is what clients ask for with stream_options: then every event has a usage, null but in the last.
    """

    def __init__(self, head: dict[str, object], *, with_usage: bool) -> None:
        self._document = json.dumps(head, separators=(",", ":"))[:-1]
        self._begin = f'data: {self._document},"choices":[{{"index":'
        self._end = '}],"usage":null}\n\n' if with_usage else "}]}\n\n"
        self._with_usage = with_usage

    def choice(self, index: int, content: str, *, logprobs: str = "null", finish: str | None = None) -> str:
        """One event of one choice; ``content`` is a JSON member such as ``"text":"..."``, ``logprobs`` JSON."""
        reason = "null" if finish is None else f'"{finish}"'
        return f'{self._begin}{index},{content},"logprobs":{logprobs},"finish_reason":{reason}{self._end}'

    def last(self, usage: Usage | None) -> str:
        """The usage, where it was asked for, and the end."""
        if not self._with_usage:
            return DONE
        counts = json.dumps(usage.as_json() if usage else None, separators=(",", ":"))
        return f'data: {self._document},"choices":[],"usage":{counts}}}\n\n{DONE}'


async def event_response(events: AsyncGenerator[str, None]) -> Response:
    """The answer, once its first event is there: what fails before has a status of its own. Raises: GatewayError."""
    first = await anext(events)
    return EventStream(_written(first, events), events, _HEADERS)


async def _written(first: str, events: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    """The events as bytes; a failure in the middle is an event, too, and then nothing says that the text is whole."""
    try:
        yield first.encode()
        async for event in events:
            yield event.encode()
    except ConchError as error:
        answer = from_conch_error(error)
        if answer.status != CLIENT_CLOSED:
            log.warning("a stream ended early: %s", answer.message)
        yield f"data: {json.dumps(error_body(answer))}\n\n".encode()
    finally:
        await events.aclose()
