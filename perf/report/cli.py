"""`conch perf report`: results as one HTML page, and as PNGs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("results", nargs=-1, required=True, type=_PATH, metavar="RESULT...")
@click.option("-o", "--output", type=_PATH, help="The page's file.  [default: report.html beside the first RESULT]")
@click.option("--png", "png_folder", type=_PATH, metavar="DIR", help="Write each plot as a PNG into this folder, too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written on stdout.")
def report(results: tuple[Path, ...], output: Path | None, png_folder: Path | None, as_json: bool) -> None:
    """Write results as one HTML page with plots.

    RESULT is a file of `conch perf run`, a sweep's folder, also a half-done one, or a folder of results. The page holds
    all it shows: it can be sent or archived as it is. Unstable points are marked; failed ones are listed with their
    reason.

    \b
    Examples:
      conch perf report perf/results/sweep/spam/20260101T120000
      conch perf report before.json after.json -o comparison.html
      conch perf report perf/results/run --png plots
    """
    from conch.errors import ConchError
    from conch.terminal import console, print_json
    from perf.report.page import render
    from perf.report.plots import plots_of, write_png
    from perf.report.results import read_all, series_of

    if importlib.util.find_spec("matplotlib") is None:
        raise ConchError("plots are drawn by matplotlib, which is not installed", fix="pip install -e '.[bench]'")
    found = read_all(results)
    series = series_of(found)
    plots = plots_of(series) if series else []
    page = output or _beside(results[0])
    pngs = []
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(found, series, plots), encoding="utf-8")
        if png_folder is not None:
            png_folder.mkdir(parents=True, exist_ok=True)
            pngs = [write_png(plot, series, png_folder) for plot in plots]
    except OSError as error:
        raise ConchError("the report cannot be written", where=error.filename or page, got=error.strerror) from error
    console.print(f"report: {page}", markup=False)
    for path in pngs:
        console.print(f"plot:   {path}", markup=False)
    if as_json:
        points = sum(len(result.rows) for result in found)
        unstable = sum(not row.point.stable for result in found for row in result.rows)
        failed = sum(len(result.failures) for result in found)
        counts = {"points": points, "unstable_points": unstable, "failed_points": failed}
        print_json({"page": str(page), "plots": [str(path) for path in pngs], **counts})


def _beside(result: Path) -> Path:
    return (result if result.is_dir() else result.parent) / "report.html"
