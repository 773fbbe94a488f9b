"""Make a stage live in one step, or take it back whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conch.repository import Repository, Stage
from server.rollout.live import Live

# Asked with a model's name and the version that should answer; it raises ConchError when it does not answer rightly.
Verify = Callable[[str, int], None]


@dataclass(frozen=True)
class Switched:
    """What a switch did.

    ``previous`` served before (None: nothing did). ``parts`` are all models that changed, the public one last;
    ``configs`` those of them whose config.pbtxt changed. ``verified`` are the models that were asked afterwards.
    ``warnings`` tell of others' ensembles that use a member and answer wrongly now.
    """

    name: str
    version: int
    previous: int | None
    parts: tuple[str, ...]
    configs: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideBySide:
    """A candidate that runs beside what serves: ask for ``model``. ``models`` are all that were brought up for it."""

    name: str
    version: int
    model: str
    models: tuple[str, ...]


def publish(
    stage: Stage,
    live: Live,
    *,
    verify: Verify,
    keep_loaded: bool = False,
    version: int | None = None,
    by: str = "publish",
) -> Switched:
    """Make the staged versions the ones that serve.

    ``verify`` is asked for the public model and for each ensemble that uses it, when a server runs; what it raises
    undoes the switch completely. ``keep_loaded`` leaves the version before loaded, so that going back takes no load.
    ``version`` None takes the next number. Raises: RepositoryError, ModelLoadError, what verify raises.
    """
    raise NotImplementedError


def already_there(stage: Stage) -> int | None:
    """The version that serves, when the stage holds exactly that: the same files and the same configs."""
    raise NotImplementedError


def side_by_side(stage: Stage, live: Live, *, verify: Verify, version: int | None = None) -> SideBySide:
    """Bring the staged versions up next to what serves (a canary), under the name NAME.vM; nothing is switched.

    Raises: RepositoryError, ModelLoadError, what verify raises; nothing is left then.
    """
    raise NotImplementedError


def complete(
    repository: Repository, name: str, version: int, live: Live, *, verify: Verify, keep_loaded: bool = False
) -> Switched:
    """Publish a canary for real, and take it down. Its number is kept unless something newer came meanwhile."""
    raise NotImplementedError


def take_down(repository: Repository, name: str, version: int, live: Live) -> tuple[str, ...]:
    """Remove a canary, files and all; returns the models that went."""
    raise NotImplementedError
