"""The sweep itself: one combination after the other, saved after each, whatever happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from perf.points import Load, Machine, Point
from perf.sweep import record
from perf.sweep.plan import Cell
from perf.sweep.record import Sweep
from perf.sweep.target import Serving, Target

# (load, url) -> point. Raises: ConchError.
Measure = Callable[[Load, str], Point]


@dataclass(frozen=True)
class Step:
    """One more combination was tried: ``point`` or ``error``, and the sweep that is on disk now.

    ``took_s`` is the measurement alone, without what it takes to start a server or to load instances.
    """

    sweep: Sweep
    cell: Cell
    point: Point | None
    error: str
    took_s: float


def carry_out(sweep: Sweep, target: Target, measure: Measure, folder: Path) -> Iterator[Step]:
    """Measure what is left. The file is written before each step is handed on, so an interruption loses one at most.

    A combination that fails is kept with its reason, and the next is tried. Raises: ConchError when the model is not
    the one that was measured before.
    """
    for cell in sweep.left:
        began = time.monotonic()
        point, error = None, ""
        try:
            serving = target.at(cell.instances)
        except (ConchError, OSError) as failure:
            error = str(failure)
        else:
            check_same_model(sweep, cell, serving)
            began = time.monotonic()
            load = sweep.plan.load(cell)
            try:
                point = measure(load, serving.url(load.protocol))
                sweep = sweep.with_point(cell, point, serving.version, serving.config_text)
            except (ConchError, OSError) as failure:
                error = str(failure)
        if point is None:
            sweep = sweep.with_failure(cell, error)
        record.write(sweep, folder)
        yield Step(sweep, cell, point, error, time.monotonic() - began)


def check_same_model(sweep: Sweep, cell: Cell, serving: Serving) -> None:
    """Raises: ConchError when the model has changed since the points that are there were measured."""
    for run in sweep.runs:
        known = run.result
        changed = known.version != serving.version or (
            run.instances == cell.instances and known.config_text != serving.config_text
        )
        if changed:
            same = known.version == serving.version
            raise ConchError(
                f"{known.model} is not what it was when the sweep began",
                got="another config.pbtxt" if same else f"version {serving.version}",
                expected="the config that the sweep's file holds" if same else f"version {known.version}",
                fix="begin a new sweep: leave out --resume",
            )


def check_same_machine(sweep: Sweep, machine: Machine) -> None:
    """Raises: ConchError when the points that are there come from another machine, or another Triton."""
    if sweep.machine != machine:
        raise ConchError(
            "the sweep was begun on another machine, or with other software",
            got=machine,
            expected=sweep.machine,
            fix="begin a new sweep: leave out --resume",
        )
