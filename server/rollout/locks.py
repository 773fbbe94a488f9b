"""Who may change what, by repository."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from conch.repository import Repository
from conch.switching import locks


def changing(repository: Repository, names: str | Iterable[str], what: str = "publish") -> AbstractContextManager[None]:
    """Hold the locks of models for a whole publish or rollback, trials included.

    Raises (on entry): conch.switching.locks.Busy: "a publish of NAME runs already (pid ...)". May be nested.
    """
    listed = [names] if isinstance(names, str) else list(names)
    return locks.models(repository.staging, listed, what)
