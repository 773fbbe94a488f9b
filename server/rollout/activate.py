"""Serve a version that is there: rollback and promote."""

from __future__ import annotations

from conch.repository import Repository
from conch.switching import plan
from server.rollout.live import Live
from server.rollout.locks import changing
from server.rollout.switch import Switched, Verify, carry_out


def activate(repository: Repository, name: str, version: int, live: Live, verify: Verify, *, by: str) -> Switched:
    """Let ``version`` of a model, or of a whole pipeline, serve; it is held there until the next publish.

    The newest version is not held: the model follows its own version policy again. ``by`` goes into the history.
    Raises: RepositoryError, ModelLoadError, what verify raises; what serves is then as it was.
    """
    with changing(repository, name, by):
        return carry_out(repository, live, lambda: plan.activate(repository, name, version, live, by=by), verify=verify)
