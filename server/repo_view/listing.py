"""`conch repo list`: a line a model, a pipeline's members below it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from conch.ledger import Alias
from server.repo_view import wording
from server.repo_view.contents import ModelView, RepositoryView
from server.repo_view.live_states import LiveStates


def in_order(view: RepositoryView, names: Sequence[str] = ()) -> tuple[tuple[int, ModelView], ...]:
    """Models and how deep they stand: pipelines with their members below, side models below what they stand beside.

    A member of several pipelines comes below each. ``names`` keeps those models, with what belongs to them.
    """
    tops = names or [m.name for m in view.models.values() if not m.used_by and not m.side_of]
    found = [row for name in tops for row in _with_parts(view, view.model(name), 0, frozenset())]
    if not names:  # ensembles that use each other have no top
        shown = {m.name for _, m in found}
        found += [(0, m) for m in view.models.values() if m.name not in shown]
    return tuple(found)


def _with_parts(
    view: RepositoryView, model: ModelView, depth: int, above: frozenset[str]
) -> Iterator[tuple[int, ModelView]]:
    yield depth, model
    # A side model's members are side models too: each stands below the model that it is beside.
    below = [view.models[m] for m in model.members if m in view.models and not model.side_of]
    below += [m for m in view.models.values() if m.side_of == model.name]
    for part in below:
        if part.name not in above and part.name != model.name:
            yield from _with_parts(view, part, depth + 1, above | {model.name})


def columns(view: RepositoryView) -> tuple[str, ...]:
    """The table's columns; the state is there when a server was asked."""
    state = ("State",) if view.live else ()
    return ("Model", "Kind", "Versions", "Serves", *state, "Size", "Source", "Created")


def rows(view: RepositoryView, depth: int, model: ModelView) -> Iterator[tuple[str, ...]]:
    """The line of a model, and one for each of its aliases."""
    main = model.main_version()
    indent = "  " * depth
    yield (
        indent + model.name,
        model.kind,
        wording.ranges(v.version for v in model.versions),
        (wording.NOTHING if model.serves is None else str(model.serves)) + (" held" if model.held else ""),
        *((_state(model),) if view.live else ()),
        wording.size(sum(v.size_bytes for v in model.versions)),
        (main.source if main else "") or wording.NOTHING,
        wording.day(main.created_at if main else ""),
    )
    for name, alias in sorted((model.aliases or {}).items()):
        share = f"gets {wording.share(alias.weight)}" if alias.weight else ""
        states = ((_alias_state(view.live, alias)),) if view.live else ()
        yield (f"{indent}  @{name}", "alias", "", str(alias.version), *states, "", share, "")


def _alias_state(live: LiveStates, alias: Alias) -> str:
    state = live.of(alias.model, alias.version)
    return (state.state if state else "") or "not loaded"


def _state(model: ModelView) -> str:
    """The state of the version that stands for the model, and what else there is to know."""
    due = next((v for v in model.versions if v.version == model.due), None)
    if due is None or due.state == "READY":
        return "READY" if model.serves is not None else wording.NOTHING
    return due.state or "not loaded"


def remarks(view: RepositoryView) -> Iterator[str]:
    """What is not as it should be, a sentence each."""
    for model in view.models.values():
        if model.problem:
            yield f"{model.name}: {model.problem}"
        if not model.versions:
            yield f"{model.name}: it has no version"
        elif model.due is None and not model.problem:
            yield f"{model.name}: its version policy selects none of its versions"
        for version in model.versions:
            if version.problem:
                yield f"{model.name} {version.version}: {version.problem}"
            if view.live and version.loads and version.state != "READY":
                reason = version.reason or "the server has not loaded it"
                yield f"{model.name} {version.version} should serve and does not: {reason}"
    yield from stranded(view)


def stranded(view: RepositoryView, names: Iterable[str] | None = None) -> Iterator[str]:
    """Aliases of models (of all, if not named) that lead to a version which is not served, a sentence each."""
    for name in view.ledger.aliases if names is None else names:
        for alias_name, alias in sorted(view.ledger.aliases.get(name, {}).items()):
            asked = view.models.get(alias.model)
            found = [v for v in asked.versions if v.version == alias.version] if asked else []
            if not any(v.state == "READY" if view.live else v.loads for v in found):
                move = f"conch repo alias {name}@{alias_name} VERSION"
                yield f"{name}@{alias_name} leads to version {alias.version}, which is not served: move it ({move})"


def document(view: RepositoryView, names: Sequence[str] = ()) -> dict[str, Any]:
    """The list for programs."""
    models = {m.name: m for _, m in in_order(view, names)}
    return {
        "repository": str(view.root),
        "server": view.live.url if view.live else None,
        "models": [model_document(m) for m in models.values()],
    }


def model_document(model: ModelView) -> dict[str, Any]:
    """One model for programs, without what only `show` tells."""
    return {
        "name": model.name,
        "kind": model.kind,
        "serves": model.serves,
        "serves_by_files": model.due,
        "held": dataclasses.asdict(model.held) if model.held else None,
        "aliases": {name: dataclasses.asdict(a) for name, a in (model.aliases or {}).items()},
        "members": list(model.members),
        "used_by": list(model.used_by),
        "side_of": model.side_of or None,
        "problem": model.problem or None,
        "versions": [
            {
                "version": v.version,
                "loads": v.loads,
                "state": v.state or None,
                "reason": v.reason or None,
                "size_bytes": v.size_bytes,
                "source": v.source or None,
                "created_at": v.created_at or None,
                "signed": v.signed,
                "problem": v.problem or None,
            }
            for v in model.versions
        ],
    }
