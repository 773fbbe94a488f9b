"""Finish or take back what a killed command left, before anything else is changed."""

from __future__ import annotations

from conch.repository import Repository
from server.rollout.live import Live


def recover(repository: Repository, live: Live) -> str | None:
    """Bring a repository back into its normal shape; returns what was done, in words, or None when nothing was due.

    Raises: RepositoryError, ServerError.
    """
    raise NotImplementedError
