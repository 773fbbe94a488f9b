"""`conch repo alias`: names for versions that are served, and a share of the traffic for a canary.

An alias leads to a version that Triton can be asked for: one that the model itself serves, or one that a side model
serves beside it. The name goes before the side model does, so no client is sent to what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias, Ledger
from conch.repository import Repository
from conch.switching import locks
from server.repo_view import wording
from server.repo_view.contents import ModelView, RepositoryView, VersionView, look
from server.repo_view.live_states import Server
from server.repo_view.pruning import refuse_during_an_update


@dataclass(frozen=True)
class Named:
    """An alias of a model, and how its version is: READY, or another state of the server's; "" where none was asked."""

    name: str
    alias_name: str
    alias: Alias
    state: str


def listed(view: RepositoryView, name: str | None = None) -> tuple[Named, ...]:
    """All aliases, or those of one model. Raises: RepositoryError when there is no such model."""
    names = [view.model(name).name] if name else sorted(view.ledger.aliases)
    return tuple(
        Named(n, alias_name, alias, _state(view, alias))
        for n in names
        for alias_name, alias in sorted(view.ledger.aliases.get(n, {}).items())
    )


def _state(view: RepositoryView, alias: Alias) -> str:
    if view.live is None:
        return ""
    found = view.live.of(alias.model, alias.version)
    return (found.state if found else "") or "not loaded"


def set_alias(root: Path, text: str, version: int | None, weight: float | None, server: Server) -> Alias:
    """Let `spam@stable` name a version, or give it another weight. Raises: RepositoryError, ServerUnavailable."""
    name, alias_name = split(text)
    repository = Repository(root)
    with locks.models(repository.staging, [name], "alias"):
        view = look(root, server.states(root))
        model = view.model(name)
        known = (model.aliases or {}).get(alias_name)
        if version is None and known is None:
            ledger.resolve(view.ledger, text)  # raises, with the names that there are
        number = version if version is not None else known.version if known else 0
        share = weight if weight is not None else known.weight if known else 0.0
        alias = Alias(_served_as(view, model, number, alias_name), number, share)
        ledger.update(repository.root, lambda now: _checked(now.with_alias(name, alias_name, alias), name))
    return alias


def remove_alias(root: Path, text: str, server: Server) -> tuple[str, ...]:
    """Forget an alias, and take away the side model that nothing else names; returns the models that went.

    Run again after a crash, it takes away what was left. Raises: RepositoryError, ServerUnavailable, ServerError.
    """
    name, alias_name = split(text)
    repository = Repository(root)
    with locks.models(repository.staging, [name], "alias"):
        refuse_during_an_update(repository)
        view = look(root)
        known = view.ledger.aliases.get(name, {})
        left_over = tuple(_unnamed(view, view.ledger, name))
        if alias_name not in known and not left_over:
            ledger.resolve(view.ledger, text)
        after = ledger.update(repository.root, lambda now: now.with_alias(name, alias_name, None))
        versions = sorted(set(_unnamed(view, after, name)))
        return _take_down(repository, name, versions, server) if versions else ()


def _take_down(repository: Repository, name: str, versions: list[int], server: Server) -> tuple[str, ...]:
    from server.rollout.switch import take_down

    with server.connect(repository.root) as live:
        return tuple(gone for version in versions for gone in take_down(repository, name, version, live))


def _unnamed(view: RepositoryView, known: Ledger, name: str) -> Iterator[int]:
    """The versions of a model that a side model serves and no alias names."""
    named = {alias.model for alias in known.aliases.get(name, {}).values()}
    for model in view.models.values():
        if model.side_of == name and model.name not in named:
            yield from (v.version for v in model.versions)


def split(text: str) -> tuple[str, str]:
    """`spam@stable` as its two names. Raises: RepositoryError."""
    name, _, alias_name = text.partition("@")
    if not (name and alias_name):
        raise RepositoryError("that is no alias", got=text, expected="MODEL@ALIAS, e.g. spam@stable")
    return name, alias_name


def _served_as(view: RepositoryView, model: ModelView, version: int, alias_name: str) -> str:
    """The model to ask for a version: the model itself or a side model. Raises: RepositoryError when none serves it."""
    sides = (m for m in view.models.values() if m.side_of == model.name)
    for candidate in (model, *sides):
        if any(v.version == version for v in _served(view, candidate)):
            return candidate.name
    there = model.version(version)
    by = f"by the server at {view.live.url}" if view.live else "by the model's version policy"
    raise RepositoryError(
        f"version {version} of {model.name} is there, and is not served",
        where=model.path,
        got=there.reason or f"served {by}: {wording.ranges(v.version for v in _served(view, model))}",
        fix=f"bring it up beside what serves: conch repo publish {there.path} --as {model.name} --alias {alias_name}",
    )


def _served(view: RepositoryView, model: ModelView) -> list[VersionView]:
    return [v for v in model.versions if (v.state == "READY" if view.live else v.loads)]


def _checked(known: Ledger, name: str) -> Ledger:
    total = math.fsum(alias.weight for alias in known.aliases.get(name, {}).values())
    if total > 1:
        raise RepositoryError(
            f"the aliases of {name} together get more than all of the traffic",
            got=", ".join(f"{a} {wording.share(v.weight)}" for a, v in sorted(known.aliases[name].items())),
            expected="100% or less",
            fix=f"lower one: conch repo alias {name}@ALIAS --weight SHARE",
        )
    return known
