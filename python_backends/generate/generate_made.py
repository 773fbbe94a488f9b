"""What an engine tells: of one request, and of itself. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Made:
    """What one request got since it was last asked: token ids, their log-probabilities, and why it ended.

    ``finish_reason`` is "" while it runs, then "stop" or "length", or "dropped" when the cache has no room for it.
    """

    tokens: list[int]
    logprobs: list[float]
    finish_reason: str


@dataclass(frozen=True)
class Usage:
    """What the pipelines do: requests that ran in the last step, that wait for the cache, its use from 0 to 1."""

    running: int
    waiting: int
    cache: float
