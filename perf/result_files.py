"""What a benchmark leaves behind: figures as JSON, a table as Markdown, and on which machine they were taken."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perf.points import Machine

RESULTS = Path("perf/results")


def described(machine: Machine) -> str:
    """The machine in a line."""
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB; Python {machine.python}, "
        f"{machine.triton}, {machine.os}"
    )


def write(path: Path, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write ``path``.json and ``path``.md; the document is as `plain` makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """A document that any JSON reader takes: what was not measured is null, not NaN."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 2) -> list[str]:
    """The lines of a Markdown table; the ``left``-th column holds names, the others numbers."""
    rules = ["---" if number == left - 1 else "---:" for number in range(len(header))]
    return [f"| {' | '.join(str(cell) for cell in row)} |" for row in (header, rules, *rows)]
