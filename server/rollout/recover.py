"""Finish or take back what a killed command left, before anything else is changed."""

from __future__ import annotations

from conch.repository import Repository
from conch.switching import locks, run
from server.rollout.live import Live


def recover(repository: Repository, live: Live) -> str | None:
    """Bring a repository back into its normal shape; returns what was done, in words, or None when nothing was due.

    `publish`, `activate` and the others do it themselves. Raises: RepositoryError, ServerError, OSError.
    """
    if not repository.root.is_dir():
        return None
    with locks.repository(repository.staging):
        return run.recover(repository.root, repository.staging, live)
