"""Whoever must take what changed on disk: a running server, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Taker(Protocol):
    """A server as the steps of a switch see it. Every call raises ConchError when the server does not follow."""

    @property
    def runs(self) -> bool:
        """Whether there is a server at all."""

    def take(self, root: Path, names: Sequence[str]) -> None:
        """Make the server serve these models as they lie in the repository ``root`` now; wait until it does."""

    def remove(self, name: str, *, wait: bool = True) -> None:
        """Make the server let go of a model that is no longer in the repository; wait until it did."""

    def drain(self, name: str) -> None:
        """Wait for requests in versions of a model that no longer serve; not for ever."""

    def served(self, name: str) -> list[int]:
        """The versions of a model that are READY, lowest first; none where nothing is loaded."""

    def known(self, name: str) -> list[int]:
        """The versions of a model that the server knows of, whatever became of them."""

    def loaded_models(self) -> list[str]:
        """Every model with a READY version."""


class NoServer:
    """Files only: no server is told, and none is waited for.

    A server in poll mode that runs all the same finds whole versions only; of a pipeline it may take the parts one
    after the other, since nobody waits for it between the steps.
    """

    runs = False
    url = ""

    def take(self, root: Path, names: Sequence[str]) -> None:
        """Nothing."""

    def remove(self, name: str, *, wait: bool = True) -> None:
        """Nothing."""

    def drain(self, name: str) -> None:
        """Nothing."""

    def served(self, name: str) -> list[int]:
        """Nothing is served."""
        return []

    def known(self, name: str) -> list[int]:
        """Nothing is known."""
        return []

    def loaded_models(self) -> list[str]:
        """Nothing is loaded."""
        return []

    def close(self) -> None:
        """Nothing."""
