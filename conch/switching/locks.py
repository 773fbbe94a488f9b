"""Who may change what: one publish of a model at a time, one switch in a repository at a time.

    .ROOT.staging/lock               the repository's: held for a switch, waited for
    .ROOT.staging/locks/NAME.lock    a model's: held for a whole publish or rollback, refused when taken

They are flocks, so they go with the process. Whoever holds one may take it again in the same thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conch.errors import RepositoryError

# Paths that this process holds: a second descriptor of the same file would wait for the first for ever.
_held: dict[Path, threading.RLock] = {}
_depth: dict[Path, int] = {}
_guard = threading.Lock()


class Busy(RepositoryError):
    """Somebody else changes the same model now."""


@contextmanager
def repository(staging: Path) -> Iterator[None]:
    """Hold a repository's lock; waits for it."""
    staging.mkdir(parents=True, exist_ok=True)
    with _lock(staging / "lock", wait=True):
        yield


@contextmanager
def models(staging: Path, names: Iterable[str], what: str = "publish") -> Iterator[None]:
    """Hold the locks of models for the whole of ``what``. Raises: Busy, naming the process that holds one."""
    folder = staging / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for name in sorted(set(names)):
            path = folder / f"{name}.lock"
            try:
                held.enter_context(_lock(path, wait=False, note=f"{what} {os.getpid()}"))
            except BlockingIOError:
                raise _busy(name, path) from None
        yield


def _busy(name: str, path: Path) -> Busy:
    what, _, pid = path.read_text(encoding="utf-8").partition(" ")
    return Busy(
        f"a {what or 'change'} of {name} runs already{f' (pid {pid})' if pid else ''}",
        where=path,
        fix="wait until it is done, then try again",
    )


@contextmanager
def _lock(path: Path, *, wait: bool, note: str = "") -> Iterator[None]:
    """Raises: BlockingIOError when somebody else holds it and we do not wait."""
    with _guard:
        own = _held.setdefault(path, threading.RLock())
    if not own.acquire(blocking=wait):
        raise BlockingIOError
    try:
        if _depth.get(path, 0):
            _depth[path] += 1
            try:
                yield
            finally:
                _depth[path] -= 1
            return
        with open(path, "a+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if note:
                handle.truncate(0)
                handle.write(note)
                handle.flush()
            _depth[path] = 1
            try:
                yield
            finally:
                _depth[path] = 0
    finally:
        own.release()
