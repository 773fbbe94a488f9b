"""Named places between the steps of a switch, where a test can let it die or fail.

Nothing happens there otherwise.
"""

from __future__ import annotations

from collections.abc import Callable


def _nothing(name: str) -> None:
    pass


_hook: Callable[[str], None] = _nothing


def reached(name: str) -> None:
    """Say that the step before ``name`` is done."""
    _hook(name)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of each place that is reached; None calls nothing again."""
    global _hook
    _hook = hook or _nothing
