"""Answers for people and for programs: one row an item, short cells in a table, whole values in JSON. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from clients.convert import text
from clients.shadow import ShadowReport
from conch.tensor_spec import Array

_SHOWN = 4
_CELL = 100


def items(answer: Mapping[str, Array], *, batched: bool) -> list[dict[str, Any]]:
    """An answer's outputs, item by item, as JSON values; an output of one value is that value, not a list of it."""
    plain = {name: (text(array) if array.dtype == object else array) for name, array in answer.items()}
    if not batched:
        return [{name: _value(array) for name, array in plain.items()}]
    count = min((len(array) for array in plain.values()), default=0)
    return [{name: _value(array[index]) for name, array in plain.items()} for index in range(count)]


def _value(item: Any) -> Any:
    shape = getattr(item, "shape", ())
    if shape in ((), (1,)):
        item = item.reshape(()).item() if hasattr(item, "reshape") else item
        return item.item() if hasattr(item, "item") else item
    return item.tolist()


def cell(value: Any) -> str | int | float:
    """A value short enough for a table: numbers rounded, long vectors cut with their size said."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, str):
        return value if len(value) <= _CELL else f"{value[: _CELL - 1]}…"
    if value and isinstance(value[0], list):
        return f"[{len(value)} x {len(value[0])}: {cell(value[0])}, …]"
    shown = ", ".join(str(cell(v)) for v in value[:_SHOWN])
    return f"[{shown}]" if len(value) <= _SHOWN else f"[{shown}, … {len(value)} values]"


def table(answers: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Columns and rows: the item's label where there is one, then the outputs."""
    names = list(answers[0]) if answers else []
    labelled = bool(answers) and len(labels) == len(answers)
    rows: list[list[object]] = [
        [*([_short(labels[index])] if labelled else []), *(cell(answer[name]) for name in names)]
        for index, answer in enumerate(answers)
    ]
    return [*(["input"] if labelled else []), *names], rows


def shadow_table(report: ShadowReport) -> tuple[list[str], list[str], list[list[object]]]:
    """What a comparison came to: lines to read first, columns, and a row an output."""
    lines = [
        f"{report.candidate} beside {report.model}: {report.compared} of {report.sampled} requests compared, "
        f"{report.failed} failed, {report.dropped} dropped"
    ]
    if report.same:
        lines.append(f"{report.same} had been answered by {report.candidate} itself")
    if report.failed:
        lines.append(f"its first failure: {report.first_failure}")
    if report.compared:
        served, candidate = report.served, report.candidate_took
        lines.append(
            f"latency of {report.model} and of {report.candidate}: "
            f"p50 {served.p50_ms:.1f} and {candidate.p50_ms:.1f} ms, "
            f"p99 {served.p99_ms:.1f} and {candidate.p99_ms:.1f} ms"
        )
    columns = ["output", "largest difference", "mean", "top-1 agreement", "equal", "not comparable"]
    rows: list[list[object]] = [
        [
            o.name,
            *(_or_dash(value, "{:.4g}") for value in (o.largest, o.mean)),
            *(_or_dash(value, "{:.1%}") for value in (o.top1_agreement, o.equal)),
            o.not_comparable,
        ]
        for o in report.outputs
    ]
    return lines, columns, rows


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def shadow_document(report: ShadowReport) -> dict[str, Any]:
    """A comparison as JSON, which knows neither NaN nor infinity: null, and "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value

    document: dict[str, Any] = plain(dataclasses.asdict(report))
    return document


def _short(label: str, width: int = 48) -> str:
    line = " ".join(label.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
