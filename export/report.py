"""What an export tells at its end: sizes, parity, time, and the commands to go on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.manifest import Parity
from export.parity import describe


@dataclass(frozen=True)
class Report:
    """The outcome of one export.

    ``versions`` are those of the frameworks that took part. ``models`` maps the written models to the size of their
    version folder in bytes, the public one last. ``steps_s`` is the time of each step in seconds; ``trial`` says what
    was tried in a real server, or why nothing was. ``server`` is the address of the running server that serves the
    version now; "" when there was none.
    """

    name: str
    version: int
    repository: Path
    models: Mapping[str, int]
    parity: tuple[Parity, ...]
    steps_s: Mapping[str, float]
    trial: str
    source: Mapping[str, Any]
    versions: Mapping[str, str]
    served_parity: tuple[Parity, ...] = ()
    opset: int | None = None
    ir_version: int | None = None
    notes: tuple[str, ...] = ()
    infer_arguments: str = ""
    server: str = ""

    @property
    def path(self) -> Path:
        """The public model's new version folder."""
        return self.repository / self.name / str(self.version)

    @property
    def serve_command(self) -> str:
        """The command that serves the repository."""
        return f"conch serve --repository {_shown(self.repository)}"

    @property
    def infer_command(self) -> str:
        """A command that asks the model."""
        return f"conch infer {self.name} {self.infer_arguments}".strip()

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON document."""
        document = dataclasses.asdict(self)
        document["repository"] = str(self.repository)
        document["path"] = str(self.path)
        document["serve"] = self.serve_command
        document["infer"] = self.infer_command
        return document


def print_report(report: Report) -> None:
    """Print a report on stderr, for people."""
    from conch.terminal import console, print_table

    console.print(f"[bold]{report.name} version {report.version}[/bold]  {_shown(report.path)}", soft_wrap=True)
    print_table(("model", "size"), [(name, size_text(size)) for name, size in report.models.items()])
    for title, rows in (
        ("parity with the source", report.parity),
        ("parity as served by Triton", report.served_parity),
    ):
        if rows:
            described = [describe(row) for row in rows]
            print_table(list(described[0]), [list(row.values()) for row in described], title=f"\n{title}")
    if report.opset is not None:
        console.print(f"\nONNX opset {report.opset}, IR {report.ir_version}")
    made_with = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.steps_s.items())
    lines = [
        f"made with: {made_with}",
        f"seconds: {times}; {sum(report.steps_s.values()):.1f} in all",
        f"trial: {report.trial}",
    ]
    lines += [f"note: {note}" for note in report.notes]
    lines += ["", f"served by: {report.server}" if report.server else f"serve it:  {report.serve_command}"]
    lines.append(f"ask it:    {report.infer_command}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def size_text(size: float) -> str:
    """A size in bytes for people, e.g. "21.6 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _shown(path: Path) -> str:
    """A path relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
