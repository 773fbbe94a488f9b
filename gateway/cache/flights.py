"""Equal questions at one time are asked once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from clients.replies import Answer
from conch.errors import ConchError, DeadlineExceeded
from gateway.errors import GatewayError

Ask = Callable[[], Coroutine[Any, Any, Answer]]


@dataclass
class _Flight:
    task: asyncio.Task[Answer]
    passengers: int = 0


class Flights:
    """The questions that are under way, by key.

    A flight is a task of its own: whoever began it may leave, and it goes on for those who joined. When the last one
    has left, it is cancelled.
    """

    def __init__(self) -> None:
        self._under_way: dict[bytes, _Flight] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def fly(self, key: bytes, ask: Ask, wait_s: Callable[[], float]) -> tuple[Answer, bool]:
        """The answer, and whether somebody else had asked for it already.

        ``ask`` keeps its own deadline; who joins waits ``wait_s`` at most. Raises: what ``ask`` raises, and
        DeadlineExceeded. Where that is the first caller's own affair, such as its deadline, those who joined ask again.
        """
        while True:
            flight = self._under_way.get(key)
            joined = flight is not None
            if flight is None:
                flight = self._under_way[key] = _Flight(asyncio.create_task(ask()))
                flight.task.add_done_callback(functools.partial(self._landed, key))
            flight.passengers += 1
            try:
                waited_for = asyncio.shield(flight.task)
                return await (asyncio.wait_for(waited_for, max(0.0, wait_s())) if joined else waited_for), joined
            except asyncio.TimeoutError:
                raise DeadlineExceeded("no answer within the deadline") from None
            except asyncio.CancelledError:
                if not joined or not flight.task.cancelled():
                    raise
            except ConchError as error:
                if not joined or not _first_ones_own(error):
                    raise
            finally:
                flight.passengers -= 1
                if not flight.passengers and not flight.task.done():
                    self._landed(key, flight.task)
                    flight.task.cancel()

    def _landed(self, key: bytes, task: asyncio.Task[Answer]) -> None:
        """Whoever comes from now on begins a new one."""
        flight = self._under_way.get(key)
        if flight is not None and flight.task is task:
            del self._under_way[key]
        if task.done() and not task.cancelled():
            task.exception()  # seen: all passengers may have left


def _first_ones_own(error: ConchError) -> bool:
    """Whether a failure says nothing about the question: a deadline that passed, a client that left."""
    return isinstance(error, DeadlineExceeded) or (isinstance(error, GatewayError) and error.status in (499, 504))
