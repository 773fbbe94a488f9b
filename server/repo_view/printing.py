"""What `conch repo` prints for people: the pure parts are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from conch.model_config import render
from conch.terminal import console, print_table
from server.repo_view import details, wording
from server.repo_view.comparison import Change, Comparison
from server.repo_view.contents import ModelView, RepositoryView, VersionView
from server.repo_view.details import Fact
from server.repo_view.pruning import Plan

# The whole history is in --json.
_SHOWN_HISTORY = 8


def title(text: str) -> None:
    """A headline with an empty line above it."""
    console.print()
    console.print(text, markup=False, style="bold")


def print_facts(facts: Iterable[Fact]) -> None:
    """Names and what is known of them, side by side."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(Text(f"  {fact.name}", style="dim"), Text(fact.text))
    console.print(table)


def print_model(view: RepositoryView, model: ModelView, version: VersionView | None) -> None:
    """All of a model, and of one of its versions."""
    console.print(details.headline(model), markup=False, style="bold")
    print_facts(details.facts(view, model))
    if model.versions:
        console.print()
        print_table(details.VERSION_COLUMNS, [details.version_row(view, model, v) for v in reversed(model.versions)])
    if model.history:
        console.print()
        lines = list(reversed(model.history))[:_SHOWN_HISTORY]
        print_table(("Served since", "Version", "By"), [(wording.minute(s.at), s.version, s.by) for s in lines])
    if version is not None:
        _print_version(version)
    if model.config is not None and model.config.ListFields():
        title("config.pbtxt")
        console.print(render(model.config).rstrip(), markup=False)


def _print_version(version: VersionView) -> None:
    title(f"Version {version.version}")
    print_facts(details.version_facts(version))
    if version.manifest is not None and version.manifest.parity:
        console.print()
        print_table(details.PARITY_COLUMNS, details.parity_rows(version.manifest))
    if version.manifest is not None and version.manifest.golden:
        console.print()
        print_table(("Golden request", "Answer"), details.golden_rows(version.manifest))


# Of a graph whose every weight is new, the first few tell enough; --json has all.
_SHOWN_CHANGES = 20


def print_comparison(found: Comparison) -> None:
    """What changed between two versions of one model."""
    same = ": nothing changed" if found.same and not found.notes else ""
    console.print(f"{found.model} {found.before} -> {found.after}{same}", markup=False, style="bold")
    for name, changes in (
        ("Signature", found.signature),
        ("Config", found.config),
        ("Source", found.source),
        ("Files", found.files),
        ("Operators", found.operators),
        ("Weights", found.weights),
    ):
        if changes:
            _print_changes(name, found, changes)
    if found.golden:
        console.print()
        rows = [
            (o.name, _or_nothing(o.largest), _share(o.top1_agreement), _share(o.equal), o.not_comparable or "")
            for o in found.golden
        ]
        print_table(("Golden output", "Largest difference", "Same top 1", "Equal", "Not comparable"), rows)
    for note in found.notes:
        console.print(f"! {note}", markup=False)


def _print_changes(name: str, found: Comparison, changes: tuple[Change, ...]) -> None:
    console.print()
    rows = [(c.name, c.before or wording.NOTHING, c.after or wording.NOTHING) for c in changes[:_SHOWN_CHANGES]]
    print_table((name, f"Version {found.before}", f"Version {found.after}"), rows)
    if len(changes) > _SHOWN_CHANGES:
        console.print(f"and {len(changes) - _SHOWN_CHANGES} more (--json has them)")


def _or_nothing(value: float | None) -> str:
    return wording.NOTHING if value is None else wording.number(value)


def _share(value: float | None) -> str:
    return wording.NOTHING if value is None else f"{value:.1%}"


def print_plans(plans: Iterable[Plan], *, dry_run: bool) -> None:
    """What prune removes and what it keeps, with the reasons."""
    goes = "would go" if dry_run else "removed"
    rows = []
    freed = count = 0
    for plan in plans:
        name = plan.names[0] + (f" and {len(plan.names) - 1} that go with it" if len(plan.names) > 1 else "")
        size = sum(r.size_bytes for r in plan.removed)
        if plan.removed:
            rows.append((name, wording.ranges(r.version for r in plan.removed), f"{goes}, {wording.size(size)}"))
            name = ""
        for kept in plan.kept:
            rows.append((name, str(kept.version), f"kept: {', '.join(kept.reasons)}"))
            name = ""
        freed, count = freed + size, count + len(plan.removed)
    print_table(("Model", "Version", ""), rows)
    console.print()
    done = "would be freed; nothing was changed" if dry_run else "freed"
    console.print(f"{count} version{'' if count == 1 else 's'}, {wording.size(freed)} {done}", markup=False)
