"""Which ensembles of a repository use a model. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from conch.errors import ConchError
from conch.repository import Repository


def ensembles_using(repository: Repository, names: Iterable[str]) -> list[str]:
    """The ensembles that have one of the models as a step, at any depth, and are none of them; sorted."""
    users: dict[str, set[str]] = {}
    for name in repository.model_names():
        for used in _steps(repository, name):
            users.setdefault(used, set()).add(name)
    own = set(names)
    found: set[str] = set()
    left = list(own)
    while left:
        for user in users.get(left.pop(), set()) - found - own:
            found.add(user)
            left.append(user)
    return sorted(found)


def _steps(repository: Repository, name: str) -> set[str]:
    try:
        config = repository.config(name)
    except ConchError:
        return set()  # a broken model of somebody else's uses nothing that we know of
    return {step.model_name for step in config.ensemble_scheduling.step}
