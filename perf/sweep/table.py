"""A sweep as lines and as a table on the terminal."""

from __future__ import annotations

from conch.terminal import console, print_table
from perf.points import Point
from perf.sweep.plan import Cell
from perf.sweep.record import Sweep, brief
from perf.sweep.run import Step

HEADER = ("instances", "batch", "in flight", "inferences/s", "p50 ms", "p90 ms", "p99 ms", "rows an execution", "")


def line(step: Step) -> str:
    """What one combination gave, in one line."""
    if step.point is None:
        return f"{step.cell.label}: failed: {brief(step.error)}"
    rate = f"{step.point.inferences_per_second:.0f} inferences/s"
    p99 = f", p99 {step.point.latency_ms['p99']:.1f} ms" if "p99" in step.point.latency_ms else ""
    return f"{step.cell.label}: {rate}{p99}{'' if step.point.stable else ', unstable'}"


def show(sweep: Sweep) -> None:
    """The table of all points, the reasons of what failed, and the point that served the most."""
    measured = sweep.measured
    failed = {failed.cell: failed.error for failed in sweep.failed}
    rows = [
        _row(cell, measured[cell]) if cell in measured else _failed_row(cell, failed[cell])
        for cell in sweep.plan.cells
        if cell in measured or cell in failed
    ]
    if rows:
        print_table(HEADER, rows, title=f"\n{sweep.plan.template.model} {_version(sweep)}".rstrip())
    stable = {cell: point for cell, point in measured.items() if point.stable}
    if stable:
        best = max(stable, key=lambda cell: stable[cell].inferences_per_second)
        console.print(f"most served: {best.label}", markup=False)
    unstable = len(measured) - len(stable)
    if unstable:
        console.print(f"{unstable} unstable: give a longer --window-ms, or leave the machine alone", markup=False)


def _version(sweep: Sweep) -> str:
    return next((f"version {run.result.version}" for run in sweep.runs if run.result.version), "")


def _row(cell: Cell, point: Point) -> tuple[str, ...]:
    latencies = (point.latency_ms.get(name) for name in ("p50", "p90", "p99"))
    remarks = ["" if point.stable else "unstable", f"{point.failures} failed requests" if point.failures else ""]
    return (
        *_cell(cell),
        f"{point.inferences_per_second:.0f}",
        *("" if value is None else f"{value:.2f}" for value in latencies),
        "" if point.average_batch is None else f"{point.average_batch:.2f}",
        ", ".join(filter(None, remarks)),
    )


def _failed_row(cell: Cell, error: str) -> tuple[str, ...]:
    return (*_cell(cell), "", "", "", "", "", f"failed: {brief(error)}")


def _cell(cell: Cell) -> tuple[str, str, str]:
    return (
        "as configured" if cell.instances is None else str(cell.instances),
        str(cell.batch_size),
        str(cell.concurrency),
    )
