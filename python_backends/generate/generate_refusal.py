"""What a request is refused with. A client tells the cases apart by the first word of the message."""

from __future__ import annotations

import re


class Refused(ValueError):
    """A request that cannot be answered as it is; the message begins with `invalid:`, `too long:` or `queue full:`."""


def invalid(name: str, got: object, expected: str) -> Refused:
    """Refuse an input or a parameter: its name, what came, what is allowed."""
    return Refused(f"invalid: {name}: got {got!r:.200}, expected {expected}")


def too_long(tokens: str, context_length: int) -> Refused:
    """Refuse a prompt that leaves no room for an answer; ``tokens`` says how long it is."""
    return Refused(
        f"too long: the prompt has {tokens} tokens, expected at most {context_length - 1}: there is room for"
        f" {context_length}, as context_length or cache_size_gb says, and the answer needs one at least"
    )


def queue_full(waiting: int, limit: int) -> Refused:
    """Refuse a request because ``waiting`` others wait already, and more than ``limit`` may not."""
    return Refused(f"queue full: {waiting} requests are waiting, and max_queue_size is {limit}; ask again later")


def not_a_grammar(message: str) -> str:
    """What to say of a schema that the engine does not take, from its own ``message``."""
    said = re.sub(r"^.*?\.cc:\d+: ", "", message.strip(), flags=re.DOTALL)
    return f"invalid: the schema cannot be used to hold a text to it: {said:.300}"
