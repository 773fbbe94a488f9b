"""One request on its way through the engine: what it asked, what came, and what of that is sent already."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from generate_made import Made
from generate_request import Ask
from generate_text import TextPieces

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Piece:
    """One response. ``output_tokens`` and ``logprobs`` (JSON) are of this piece, ``cumulative_logprob`` of all so far.

    ``finish_reason`` is "" but in the last piece, where it is "stop" or "length".
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cumulative_logprob: float
    logprobs: str


class Listener(Protocol):
    """Who waits for the answer to one request. After a piece with a finish reason, or a failure, nothing more comes."""

    def send(self, piece: Piece) -> None:
        """Take a piece."""

    def fail(self, message: str) -> None:
        """The request is refused, by a message that begins as those of generate_refusal.py, or the engine failed."""

    def drop(self) -> None:
        """The request is cancelled, and its place is free."""

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""


class Job:
    """A request; changed by the stepping thread alone once it is submitted."""

    def __init__(
        self,
        ask: Ask,
        prompt: Sequence[int],
        max_tokens: int,
        stop_token_ids: frozenset[int],
        listener: Listener,
        decode: Decode,
        now_s: float,
    ) -> None:
        """``prompt`` as tokens; ``decode`` makes text of them; times are of one monotonic clock."""
        self.ask, self.prompt, self.max_tokens, self.listener = ask, list(prompt), max_tokens, listener
        self.handle: Any = None
        self.arrived_s = now_s
        self.first_token_s: float | None = None
        self.last_token_s = now_s
        self.next_check_s = now_s
        self.next_send_s = now_s
        self.tokens: list[int] = []
        self.restarted = False
        self.finish_reason = ""
        self._decode = decode
        self._stop_token_ids = stop_token_ids
        sampling = ask.sampling
        self._text = TextPieces(decode, sampling.stop, include_stop=sampling.include_stop_str_in_output, prompt=prompt)
        self._ready = ask.text if ask.prepend_input else ""
        self._told_tokens = 0
        self._cumulative_logprob = 0.0
        self._logprobs: list[dict[str, Any]] = []

    @property
    def output_tokens(self) -> int:
        """How many tokens came."""
        return len(self.tokens)

    @property
    def has_text(self) -> bool:
        """Whether there is something to send."""
        return bool(self._ready)

    def take(self, made: Made, now_s: float) -> None:
        """Add what the engine made; sets ``finish_reason`` when that was all."""
        tokens = made.tokens
        if tokens:
            if self.first_token_s is None:
                self.first_token_s = now_s
            self.last_token_s = now_s
            self.tokens += tokens
            if self.ask.sampling.logprobs or "cumulative_logprob" in self.ask.returns:
                self._take_logprobs(made)
        ended_by_token = made.finish_reason == "stop" and tokens and tokens[-1] in self._stop_token_ids
        said = tokens[:-1] if ended_by_token else tokens
        if said:
            self._ready += self._text.add(said)
        if made.finish_reason:
            self._ready += self._text.finish()
            self.finish_reason = made.finish_reason
        if self._text.stopped:
            self.finish_reason = "stop"

    def piece(self) -> Piece:
        """What is ready; it counts as sent."""
        piece = Piece(
            text=self._ready,
            finish_reason=self.finish_reason,
            input_tokens=len(self.prompt),
            output_tokens=self.output_tokens - self._told_tokens,
            cumulative_logprob=self._cumulative_logprob,
            logprobs=json.dumps(self._logprobs) if self.ask.sampling.logprobs else "null",
        )
        self._ready, self._told_tokens, self._logprobs = "", self.output_tokens, []
        return piece

    def _take_logprobs(self, made: Made) -> None:
        self._cumulative_logprob += sum(made.logprobs)
        if self.ask.sampling.logprobs:
            rank = 1 if self.ask.sampling.greedy else None  # the engine does not tell
            for token, logprob in zip(made.tokens, made.logprobs, strict=True):
                text = self._decode([token])
                self._logprobs.append({str(token): {"logprob": logprob, "rank": rank, "decoded_token": text}})
