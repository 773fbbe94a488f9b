"""Log-probabilities of tokens, in the two shapes that OpenAI has for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clients.generation import TokenLogprob

# OpenAI's stand-in for a probability of nothing: JSON has no infinity.
LOWEST = -9999.0


def chat_logprobs(tokens: Iterable[TokenLogprob], top: int) -> dict[str, Any]:
    """As in chat: each token with its bytes and its ``top`` alternatives."""
    content = [_entry(token) | {"top_logprobs": [_entry(other) for other in token.top[:top]]} for token in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[TokenLogprob], top: int, offset: int = 0) -> dict[str, Any]:
    """As in completions: one list a property. ``offset`` is the first token's place in the text, in characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{other.token: _finite(other.logprob) for other in token.top[:top]} for token in tokens]
        if top
        else None,
        "text_offset": offsets,
    }


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": _finite(token.logprob), "bytes": list(token.token.encode("utf-8"))}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
