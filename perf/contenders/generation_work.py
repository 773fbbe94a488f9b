"""What is asked in the comparison of generation: prompts that no engine has seen, and texts of known lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass

from perf.contenders.workloads import WORDS


@dataclass(frozen=True)
class Work:
    """Prompts, and the number of tokens that each one's text has."""

    prompts: tuple[str, ...]
    lengths: tuple[int, ...]


# Texts of the one that arrives, and of those that run meanwhile, in tokens.
SHORT, LONG = 8, 600


def arrivals(nonce: str, streams: int, count: int = 1024) -> Work:
    """One stream of short texts, the first, and long ones on the others: it alone arrives, while these run."""
    prompts = work(nonce, SHORT, count).prompts
    short = count // streams
    return Work(prompts, (SHORT,) * short + (LONG,) * (count - short))


def work(nonce: str, mean_tokens: int, count: int = 1024) -> Work:
    """Prompts of 15 to 40 words, texts of 0.5 to 1.5 times the mean length; the same for one nonce.

    Each prompt begins with the nonce, so that none is in a prefix cache from a run before. Lengths differ, so that
    streams which began together do not end together.
    """
    chance = random.Random(nonce)
    prompts = tuple(
        f"{nonce} {index} " + " ".join(chance.choices(WORDS, k=chance.randint(15, 40))) for index in range(count)
    )
    return Work(prompts, tuple(chance.randint(mean_tokens // 2, mean_tokens * 3 // 2) for _ in range(count)))
