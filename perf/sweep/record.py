"""The file of a sweep: sweep.json, whole and readable after every point, so that whatever stops it loses one at most.

Points are kept as one `RunResult` for each number of instances, since each has a config of its own. A combination that
failed is kept with its reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ConchError
from perf.points import Load, Machine, Point, RunResult, from_document, to_document
from perf.sweep.plan import Cell, Plan

FILE = "sweep.json"
FORMAT = 1
KIND = "sweep"


@dataclass(frozen=True)
class Failed:
    """A combination that could not be measured, and why."""

    cell: Cell
    error: str


@dataclass(frozen=True)
class Run:
    """What was measured with one number of instances; ``instances`` None is as the config has it."""

    instances: int | None
    result: RunResult


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as it has come. ``at``: UTC, ISO 8601, of its start."""

    name: str
    at: str
    plan: Plan
    machine: Machine
    runs: tuple[Run, ...] = ()
    failed: tuple[Failed, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> dict[Cell, Point]:
        """The points, by combination."""
        return {
            Cell(run.instances, point.load.batch_size, point.load.concurrency or 0): point
            for run in self.runs
            for point in run.result.points
        }

    @property
    def left(self) -> tuple[Cell, ...]:
        """What was not tried yet."""
        tried = set(self.measured) | {failed.cell for failed in self.failed}
        return tuple(cell for cell in self.plan.cells if cell not in tried)

    def with_point(self, cell: Cell, point: Point, version: str, config_text: str) -> Sweep:
        """The sweep with one more point. ``config_text`` is the config.pbtxt under which it was measured."""
        runs = list(self.runs)
        at = next((i for i, run in enumerate(runs) if run.instances == cell.instances), None)
        if at is None:
            instances = "" if cell.instances is None else f"-{cell.instances}-instances"
            name = f"{self.name}{instances}"
            model = self.plan.template.model
            result = RunResult(name, self.at, self.machine, model, version, config_text, (point,))
            runs.append(Run(cell.instances, result))
        else:
            old = runs[at].result
            runs[at] = dataclasses.replace(
                runs[at], result=dataclasses.replace(old, points=(*old.points, point), config_text=config_text)
            )
        return dataclasses.replace(self, runs=tuple(runs))

    def with_failure(self, cell: Cell, error: str) -> Sweep:
        """The sweep with one more combination that failed."""
        return dataclasses.replace(self, failed=(*self.failed, Failed(cell, error)))

    def without_failures(self) -> Sweep:
        """The sweep as if what failed had not been tried."""
        return dataclasses.replace(self, failed=())


def brief(error: str) -> str:
    """An error's message in one line: what happened, and what came (see conch.errors)."""
    lines = error.splitlines() or [""]
    got = next((line.strip().removeprefix("got:").strip() for line in lines if line.strip().startswith("got:")), "")
    return f"{lines[0]}: {got}" if got else lines[0]


def to_json(sweep: Sweep) -> dict[str, Any]:
    """The sweep as JSON-ready values."""
    return {
        "format": FORMAT,
        "kind": KIND,
        "name": sweep.name,
        "at": sweep.at,
        "finished": not sweep.left,
        "plan": dataclasses.asdict(sweep.plan),
        "machine": dataclasses.asdict(sweep.machine),
        "runs": [{"instances": run.instances, "result": to_document(run.result)} for run in sweep.runs],
        "failed": [{**dataclasses.asdict(f.cell), "error": f.error} for f in sweep.failed],
        "notes": list(sweep.notes),
    }


def from_json(document: Mapping[str, Any], where: object = None) -> Sweep:
    """Read what `to_json` wrote. Raises: ConchError when it is something else."""
    if document.get("kind") != KIND or document.get("format") != FORMAT:
        raise ConchError(
            "This is no sweep that this release can read",
            where=where,
            got=f"kind {document.get('kind')!r}, format {document.get('format')!r}",
            expected=f"kind {KIND!r}, format {FORMAT}",
            fix="measure again with `conch perf sweep`",
        )
    try:
        return Sweep(
            name=document["name"],
            at=document["at"],
            plan=_plan(document["plan"]),
            machine=Machine(**document["machine"]),
            runs=tuple(Run(run["instances"], from_document(run["result"], where)) for run in document["runs"]),
            failed=tuple(_failed(failed) for failed in document["failed"]),
            notes=tuple(document["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConchError("A sweep's file is incomplete", where=where, got=f"{type(error).__name__}: {error}") from error


def write(sweep: Sweep, folder: Path) -> Path:
    """Replace the sweep's file in one step; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{FILE}"
    with beside.open("w", encoding="utf-8") as file:
        json.dump(to_json(sweep), file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    path = folder / FILE
    os.replace(beside, path)
    return path


def read(path: Path) -> Sweep:
    """Read a sweep's file, or the one in a folder. Raises: ConchError."""
    path = path / FILE if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConchError("A sweep cannot be read", where=path, got=error.strerror) from error
    except ValueError as error:
        raise ConchError("A sweep's file is no JSON", where=path, got=error) from error
    return from_json(document if isinstance(document, dict) else {}, path)


def newest(root: Path, name: str) -> Path | None:
    """The folder of the newest sweep of this name; None when there is none."""
    found = sorted(path.parent for path in (root / name).glob(f"*/{FILE}"))
    return found[-1] if found else None


def _plan(document: Mapping[str, Any]) -> Plan:
    fields = dict(document)
    template = Load(**fields.pop("template"))
    fields |= {axis: tuple(fields[axis]) for axis in ("concurrencies", "batch_sizes", "instances")}
    return Plan(template=template, **fields)


def _failed(document: Mapping[str, Any]) -> Failed:
    fields = dict(document)
    error = fields.pop("error")
    return Failed(Cell(**fields), error)
