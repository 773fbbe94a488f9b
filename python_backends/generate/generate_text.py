"""Tokens to text that may be sent: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What a decoder writes for bytes that are no character, or not one yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# A character has four bytes at most, and a token one at least: three more tokens finish any character.
TOKENS_TO_FINISH = 3
# Only a text that is no UTF-8 at all goes on without a whole character for so many tokens.
MANY_TOKENS = 16
# Of a prompt so many are decoded with the first tokens.
PROMPT_TOKENS = 6


class TextPieces:
    """The text of one request, as it grows.

    Some decoders drop a space at the start of what they decode, so that a token's text depends on those before: each
    decoding starts at the piece before, or at the end of the prompt, whose text is then taken off.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        *,
        include_stop: bool = False,
        prompt: Sequence[int] = (),
    ) -> None:
        """``decode`` makes text of token ids; ``stop`` are texts that end this one before, or with, themselves."""
        self._decode = decode
        self._stop = stop
        self._include_stop = include_stop
        self._tokens = list(prompt[-PROMPT_TOKENS:])  # from the start of the piece before
        self._sent_tokens = len(self._tokens)  # so many of these are text already
        self._sent_text = decode(self._tokens) if prompt else ""  # and this is their text
        self._held = ""  # text that may turn out to be the start of a stop string
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """Take the tokens that came; returns the text that is ready, often one token's, sometimes none."""
        self._tokens.extend(tokens)
        text = self._decode(self._tokens)
        if not text.endswith(UNFINISHED):
            return self._ready(self._advance(text, len(self._tokens)))
        if len(self._tokens) - self._sent_tokens < MANY_TOKENS:
            return ""
        for count in range(len(self._tokens) - TOKENS_TO_FINISH, self._sent_tokens, -1):
            part = self._decode(self._tokens[:count])
            if text.startswith(part):
                return self._ready(self._advance(part, count))
        return ""

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        text = self._decode(self._tokens)
        ready = self._ready(self._advance(text, len(self._tokens)))
        ready, self._held = ready + self._held, ""
        return ready

    def _advance(self, text: str, count: int) -> str:
        """What is new in the text of the first ``count`` tokens, which start the next decoding."""
        new = text[len(self._sent_text) :]
        if not new:  # a special token: nothing to begin at
            self._sent_tokens = count
            return ""
        self._tokens = self._tokens[self._sent_tokens :]
        self._sent_tokens = count - self._sent_tokens
        self._sent_text = self._decode(self._tokens[: self._sent_tokens])
        return new

    def _ready(self, new: str) -> str:
        """What of it can be no part of a stop string; sets ``stopped`` when one is there."""
        if not self._stop or self.stopped:
            return "" if self.stopped else new
        text = self._held + new
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            end, at = min(found)  # the first that is complete, however many tokens came at once
            self.stopped, self._held = True, ""
            return text[: end if self._include_stop else at]
        kept = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the start of a stop string."""
    for start in range(max(0, len(text) - len(stop) + 1), len(text)):
        if stop.startswith(text[start:]):
            return len(text) - start
    return 0
