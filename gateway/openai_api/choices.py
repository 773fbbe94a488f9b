"""Several texts at a time as one stream of pieces, and the whole texts that pieces make."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from clients.generation import Generated, Piece, whole
from gateway.errors import GatewayError

Run = Callable[[], AsyncGenerator[Piece, None]]

# Of one request's texts, as many are generated at a time: the model's queue belongs to others, too.
AT_ONCE = 16


@dataclass(frozen=True)
class Usage:
    """Tokens of all texts of an answer; a prompt counts once, however many choices it has."""

    input_tokens: int
    output_tokens: int

    def as_json(self) -> dict[str, int]:
        """As OpenAI's clients read it."""
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class TokenCounts:
    """Adds up the counts of an answer's texts: those of the latest piece of each."""

    def __init__(self, choices_a_prompt: int) -> None:
        self._choices_a_prompt = choices_a_prompt
        self._latest: dict[int, Piece] = {}

    def saw(self, index: int, piece: Piece) -> None:
        """The latest piece of a text."""
        self._latest[index] = piece

    def usage(self) -> Usage | None:
        """The sum; None where the model does not count."""
        pieces = self._latest.items()
        if any(piece.input_tokens is None or piece.output_tokens is None for _, piece in pieces):
            return None
        asked = sum(piece.input_tokens or 0 for index, piece in pieces if index % self._choices_a_prompt == 0)
        return Usage(asked, sum(piece.output_tokens or 0 for _, piece in pieces))


async def pieces_of(runs: Sequence[Run]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all texts, each with its text's place, as they come. Closing it ends all of them.

    Raises: GatewayError, the first that any of them meets.
    """
    if len(runs) == 1:
        async with contextlib.aclosing(runs[0]()) as run:
            async for piece in run:
                yield 0, _sound(piece)
        return
    came: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue(maxsize=4 * AT_ONCE)
    places = asyncio.Semaphore(AT_ONCE)

    async def read(index: int, start: Run) -> None:
        try:
            async with places, contextlib.aclosing(start()) as run:
                async for piece in run:
                    await came.put((index, piece))
        except Exception as error:
            await came.put((index, error))
        else:
            await came.put((index, None))

    readers = [asyncio.create_task(read(index, start)) for index, start in enumerate(runs)]
    try:
        left = len(readers)
        while left:
            index, one = await came.get()
            if one is None:
                left -= 1
            elif isinstance(one, Exception):
                raise one
            else:
                yield index, _sound(one)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def whole_texts(runs: Sequence[Run]) -> list[Generated]:
    """All texts, whole, in order. Raises: GatewayError."""
    taken: list[list[Piece]] = [[] for _ in runs]
    async with contextlib.aclosing(pieces_of(runs)) as pieces:
        async for index, piece in pieces:
            taken[index].append(piece)
    return [whole(pieces) for pieces in taken]


def usage_of(texts: Sequence[Generated], choices_a_prompt: int) -> Usage | None:
    """The tokens of whole texts; None where the model does not count."""
    if any(text.input_tokens is None or text.output_tokens is None for text in texts):
        return None
    asked = sum(text.input_tokens or 0 for text in texts[::choices_a_prompt])
    return Usage(asked, sum(text.output_tokens or 0 for text in texts))


def _sound(piece: Piece) -> Piece:
    """The piece, unless the model gave up on it. Raises: GatewayError 503."""
    if piece.finish_reason == "cancelled":
        raise GatewayError(
            "the model stopped before the text was done", status=503, code="cancelled", headers={"Retry-After": "1"}
        )
    return piece
