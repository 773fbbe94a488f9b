"""What a publish, a rollback or a promotion tells: for people on stderr, for programs as one document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from conch.terminal import console
from server.repo_view import wording
from server.repo_view.comparison import Change
from server.rollout.changes import ModelChanges
from server.rollout.latency import Measured
from server.rollout.publish import Published
from server.rollout.switch import Switched
from server.rollout.trial import Tried

# One change a line, up to here: a config from another hand may differ everywhere.
MOST_CHANGES = 12


def show(done: Published) -> None:
    """Print what was done, what changed, how the answers compare, and how long it took."""
    for line in lines(done):
        console.print(line, markup=False, soft_wrap=True)


def lines(done: Published) -> Iterator[str]:
    """The report of a publish, line by line. Pure."""
    if done.recovered:
        yield f"first: {done.recovered}"
    yield _headline(done)
    for model in done.changes:
        yield from _model(model)
    if done.tried is not None:
        yield from _tried(done.tried)
    for warning in done.warnings:
        yield f"  warning: {warning}"
    if done.steps_s:
        yield "  took     " + ", ".join(
            f"{step} {seconds:.1f} s" for step, seconds in done.steps_s.items() if seconds >= 0.05
        )


def _headline(done: Published) -> str:
    before = f"; version {done.previous} served before" if done.previous is not None else ""
    if done.outcome == "already there":
        return f"{done.name}: this is already there as version {done.version}, which serves: nothing to do"
    if done.outcome == "dry run":
        now = f"; version {done.previous} serves" if done.previous is not None else ""
        return f"{done.name} would become version {done.version}: nothing was changed{now}"
    if done.outcome == "beside":
        return f"{done.name} version {done.version} runs beside what serves: ask for {done.served_as}"
    where = f"on {done.server}" if done.server else "no server was told: it serves at the next start"
    return f"{done.name} version {done.version} is published ({where}){before}"


def _model(model: ModelChanges) -> Iterator[str]:
    size = wording.size(model.size_bytes)
    if model.size_before_bytes is not None:
        size = f"{wording.size(model.size_before_bytes)} -> {size}"
    yield f"  {model.model}: {size}, config: {model.config_from}"
    rows = [*model.tensors, *model.config]
    for change in rows[:MOST_CHANGES]:
        yield f"    {_change(change)}"
    if len(rows) > MOST_CHANGES:
        yield f"    and {len(rows) - MOST_CHANGES} changes more: `conch repo diff`"


def _change(change: Change) -> str:
    if change.before is None:
        return f"{change.name}: new: {change.after}"
    if change.after is None:
        return f"{change.name}: gone: {change.before}"
    return f"{change.name}: {change.before} -> {change.after}"


def _tried(tried: Tried) -> Iterator[str]:
    for name, asked in tried.asked.items():
        held = sum(request.outputs is not None for request in asked.requests)
        known = f", {held} with a known answer" if held else ", none with a known answer"
        yield f"  asked {name}: {len(asked.requests)} requests{known}"
    for name, reason in tried.skipped.items():
        yield f"  not asked {name}: {reason}"
    for row in tried.differences:
        parts = [
            f"largest difference {wording.number(row.largest)}" if row.largest is not None else "",
            f"top-1 agreement {row.top1_agreement:.0%}" if row.top1_agreement is not None else "",
            f"equal {row.equal:.0%}" if row.equal is not None else "",
            "not comparable" if row.not_comparable else "",
        ]
        yield f"  answers, {row.name}: {', '.join(p for p in parts if p)} ({tried.compared_with})"
    if tried.measured is not None:
        yield f"  latency  {latencies(tried.measured)}"


def latencies(measured: Measured) -> str:
    """Both sides, and the budget."""
    now = measured.candidate
    before = measured.before
    beside = f"; the version that serves: p50 {before.p50_ms:.2f} ms, p99 {before.p99_ms:.2f} ms" if before else ""
    figures = f"p50 {now.p50_ms:.2f} ms, p99 {now.p99_ms:.2f} ms of {now.requests} requests"
    return f"{figures} (budget {measured.budget_ms:g} ms){beside}"


def document(done: Published) -> dict[str, Any]:
    """The report as JSON takes it: no tensors."""
    fields = {f.name: getattr(done, f.name) for f in dataclasses.fields(done) if f.name not in ("tried", "changes")}
    found = {**fields, "steps_s": dict(done.steps_s), "changes": [dataclasses.asdict(c) for c in done.changes]}
    if done.tried is not None:
        tried = done.tried
        found["asked"] = {name: len(asked.requests) for name, asked in tried.asked.items()}
        found["not_asked"] = dict(tried.skipped)
        found["differences"] = [dataclasses.asdict(row) for row in tried.differences]
        found["latency"] = dataclasses.asdict(tried.measured) if tried.measured is not None else None
    return found


def show_switched(done: Switched) -> None:
    """Print what a rollback or a promotion did."""
    before = f"; version {done.previous} served before" if done.previous not in (None, done.version) else ""
    console.print(f"{done.name} version {done.version} serves{before}", markup=False)
    if len(done.parts) > 1:
        console.print(f"  with {', '.join(done.parts[:-1])}", markup=False)
    for warning in done.warnings:
        console.print(f"  warning: {warning}", markup=False, soft_wrap=True)
