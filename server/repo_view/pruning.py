"""`conch repo prune`: which versions nobody needs, and how they go.

A version goes by one rename out of the repository and is deleted there: killed at any moment, this leaves every version
whole or gone. Of a pipeline the ensemble's goes first, so that no ensemble is left without its members.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import RepositoryError
from conch.repository import Repository
from conch.switching import journal, locks
from conch.switching.files import flush
from conch.switching.plan import remembered_config
from server.repo_view.contents import ModelView, RepositoryView, look
from server.repo_view.live_states import Server


@dataclass(frozen=True)
class Kept:
    """A version that stays, and why."""

    version: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Removed:
    """A version that goes: its folders, the ensemble's first, and their bytes."""

    version: int
    folders: tuple[Path, ...]
    size_bytes: int


@dataclass(frozen=True)
class Plan:
    """What is done to models whose versions belong together: a model, or ensembles and all that they use."""

    names: tuple[str, ...]
    kept: tuple[Kept, ...]
    removed: tuple[Removed, ...]


def plan(view: RepositoryView, names: Sequence[str], keep: int) -> tuple[Plan, ...]:
    """What prune would do to these models (all when none are named). Pure. Raises: RepositoryError."""
    groups = _groups(view)
    wanted = [_group_of(view, groups, name) for name in names] if names else groups
    return tuple(_plan_group(view, group, keep) for group in dict.fromkeys(wanted))


def prune(root: Path, names: Sequence[str], keep: int, server: Server) -> tuple[Plan, ...]:
    """Remove what `plan` says, and return it. Raises: RepositoryError, ServerUnavailable, ServerError.

    A server that serves the repository and does not answer stops it: what it serves must not be guessed.
    """
    repository = Repository(root)
    live = server.states(root)
    parts = {part for found in plan(look(root, live), names, keep) for part in found.names}
    with locks.models(repository.staging, parts, "prune"), repository.stage() as stage:
        outside = stage.path.parent / "pruned"  # it goes with the stage
        with locks.repository(repository.staging):
            refuse_during_an_update(repository)
            now = plan(look(root, server.states(root)), names, keep)
            locked = tuple(found for found in now if set(found.names) <= parts)
            for removed in (r for found in locked for r in found.removed):
                for folder in removed.folders:
                    _move_out(folder, outside)
                    remembered_config(repository.staging, folder.parent.name, removed.version).unlink(missing_ok=True)
    return locked


def _move_out(folder: Path, outside: Path) -> None:
    target = outside / folder.parent.name
    target.mkdir(parents=True, exist_ok=True)
    os.rename(folder, target / folder.name)
    flush(folder.parent)


def refuse_during_an_update(repository: Repository) -> None:
    """Raises: RepositoryError while a switch is not finished."""
    open_ = journal.read(repository.staging)
    if open_ is not None:
        raise RepositoryError(
            f"an update of {open_.name} to version {open_.version} was interrupted and is not finished",
            where=repository.staging / journal.JOURNAL_FILE,
            fix="run `conch repo recover`, or that command again: it is finished then, or taken back",
        )


def _groups(view: RepositoryView) -> list[tuple[str, ...]]:
    """Models by what belongs together, ensembles before their members; side models belong to nobody."""
    models = {n: m for n, m in view.models.items() if not m.side_of}
    groups: list[tuple[str, ...]] = []
    grouped: set[str] = set()
    for name in models:
        if name in grouped:
            continue
        found, waiting = set(), [name]
        while waiting:
            current = waiting.pop()
            if current in models and current not in found:
                found.add(current)
                waiting += [*models[current].members, *models[current].used_by]
        grouped |= found
        groups.append(tuple(sorted(found, key=lambda n: (not models[n].members, n))))
    return groups


def _group_of(view: RepositoryView, groups: Sequence[tuple[str, ...]], name: str) -> tuple[str, ...]:
    model = view.model(name)
    if model.side_of:
        raise RepositoryError(
            f"{name} serves a version of {model.side_of} beside it",
            where=model.path,
            fix=f"it goes with its alias: conch repo alias {model.side_of}@canary --remove",
        )
    if model.kind == "member":
        owners = [n for n in model.used_by if not view.models[n].side_of]
        raise RepositoryError(
            f"{name} is a part of {', '.join(owners)}: their versions go together",
            where=model.path,
            fix=f"prune the pipeline: conch repo prune {owners[0]}" if owners else None,
        )
    return next(g for g in groups if name in g)


def _plan_group(view: RepositoryView, group: tuple[str, ...], keep: int) -> Plan:
    models = [view.models[name] for name in group]
    reasons: dict[int, list[str]] = {}
    for model in models:
        for version, reason in _reasons(view, model, keep):
            of_version = reasons.setdefault(version, [])
            text = reason if len(group) == 1 or not model.used_by else f"{model.name}: {reason}"
            if reason not in of_version and text not in of_version:
                of_version.append(text)
    there = sorted({v.version for m in models for v in m.versions})
    removed = []
    for number in (v for v in there if v not in reasons):
        folders = [v for m in models for v in m.versions if v.version == number]
        removed.append(Removed(number, tuple(v.path for v in folders), sum(v.size_bytes for v in folders)))
    return Plan(group, tuple(Kept(v, tuple(reasons[v])) for v in there if v in reasons), tuple(removed))


def _reasons(view: RepositoryView, model: ModelView, keep: int) -> Iterator[tuple[int, str]]:
    """Every version of a model that must stay, with one reason; a version may come several times."""
    numbers = [v.version for v in model.versions]
    for version in model.versions:
        if model.problem:
            yield version.version, f"its config is not known ({model.problem})"
        if version.loads:
            yield version.version, "serves" if version.version == model.due else "its policy loads it"
        if version.state in ("READY", "LOADING", "UNLOADING") and not version.loads:
            yield version.version, f"{version.state} on the server"
    for number in numbers[-keep:]:
        yield number, "newest" if keep == 1 else f"among the newest {keep}"
    for name, alias in sorted((model.aliases or {}).items()):
        yield alias.version, f"alias {name}"
    if model.held:
        yield model.held.version, "held"
    told_by_pipeline = not model.history and any(view.models[n].history for n in model.used_by)
    before = None if told_by_pipeline else last_good(model)
    if before is not None:
        yield before, "served before"
    for other in view.models.values():
        if other.side_of == model.name:
            yield from ((v.version, f"served by {other.name}") for v in other.versions)
        if other.config is not None:
            for step in other.config.ensemble_scheduling.step:
                if step.model_name == model.name and step.model_version > 0:
                    yield step.model_version, f"a step of {other.name} is pinned to it"


def last_good(model: ModelView) -> int | None:
    """The version to go back to: the last that served before the one that does; without a history, the one below.

    None where there is none, or where nothing serves.
    """
    there = {v.version for v in model.versions}
    serves = {model.serves, model.due} - {None}
    for served in reversed(model.history):
        if served.version in there and served.version not in serves:
            return served.version
    below = [v for v in there if serves and v < min(s for s in serves if s is not None)]
    return max(below, default=None)


def document(found: Plan) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "names": list(found.names),
        "removed": [{"version": r.version, "size_bytes": r.size_bytes} for r in found.removed],
        "kept": [{"version": k.version, "reasons": list(k.reasons)} for k in found.kept],
    }
