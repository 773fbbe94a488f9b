"""A file that is read again when it changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 1.0


class WatchedFile:
    """Tells when a file was replaced or written. Asked at every request, it costs nothing between two looks.

    A look itself is a call of the system, about two microseconds.
    """

    def __init__(
        self, path: Path, *, look_every_s: float = LOOK_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._look_every_s = look_every_s
        self._clock = clock
        self._looked_at_s = clock()
        self._state = _state(path)

    def changed(self) -> bool:
        """Whether it is another file, or holds something else, than at the last look."""
        now_s = self._clock()
        if now_s - self._looked_at_s < self._look_every_s:
            return False
        self._looked_at_s = now_s
        before, self._state = self._state, _state(self.path)
        return before != self._state


def _state(path: Path) -> tuple[int, int, int] | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
