"""The plots of a report, each a matplotlib figure drawn from series, in ink and on paper that the caller chooses.

As SVG the ink is CSS's ``currentColor`` and the paper a variable of the page, so that a plot is readable in a light and
a dark page; text stays text. As PNG it is dark on white. No state of pyplot is touched.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.report.figures import (
    COLUMNS,
    MAX_PANELS,
    NUMBERED,
    Colors,
    Figure,
    average_batches,
    batch_shares,
    percentiles,
    throughput_latency,
    time_parts,
)
from perf.report.results import Series

# Colors that no plot uses: they are replaced in the SVG.
_INK, _PAPER = "#0a0b0c", "#f9fafb"
_PNG_INK, _PNG_PAPER = "#1f2328", "#ffffff"


@dataclass(frozen=True)
class Plot:
    """One plot of a report: ``name`` is its PNG's; ``caption`` says how to read it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Figure, Sequence[Series], Colors], None]
    panels: int = 1


def plots_of(series: Sequence[Series]) -> list[Plot]:
    """The plots that these series have figures for."""
    panels = min(len(series), MAX_PANELS)
    left_out = f" {MAX_PANELS} of {len(series)} series are drawn; the table has all." if len(series) > panels else ""
    mark = " Hollow marks, and levels with a star, are unstable: do not trust their figures."
    stars = mark if any(not row.point.stable for one in series for row in one.rows) else ""
    numbered = "the highest of each line is written beside it" if len(series) > NUMBERED else "it is written beside it"
    found = [
        Plot(
            "throughput-latency",
            "Throughput against latency",
            f"Each mark is a load: so many requests in flight, or asked a second; {numbered}. Further right serves "
            f"more; lower answers sooner. Where a line turns upward, more load only waits.{stars}",
            throughput_latency,
        ),
        Plot(
            "percentiles",
            "Latency percentiles over the load",
            f"p99 far above p50 means that some requests wait for others.{left_out}{stars}",
            percentiles,
            panels,
        ),
    ]
    told = [row for one in series for row in one.rows if row.point.server_ms]
    if told:
        timed = [one for one in series if any(row.point.server_ms for row in one.rows)]
        found.append(
            Plot(
                "where-time-goes",
                "Where the time goes",
                "Parts of the mean latency, written above each bar in ms. Queue: waiting for an instance, or for "
                f"a batch to fill. Network and client: what the server does not see.{left_out}{stars}",
                time_parts,
                min(len(timed), MAX_PANELS),
            )
        )
    sized = [one for one in series if any(row.point.batch_sizes for row in one.rows)]
    if sized:
        caption = f"Shares of the model's executions by their rows; above each bar, the mean.{left_out}{stars}"
        found.append(Plot("batch-sizes", "Batch sizes that formed", caption, batch_shares, min(len(sized), MAX_PANELS)))
    elif any(row.point.average_batch for one in series for row in one.rows):
        caption = f"Rows an execution, on average.{stars}"
        found.append(Plot("batch-sizes", "Batch sizes that formed", caption, average_batches))
    return found


def as_svg(plot: Plot, series: Sequence[Series]) -> str:
    """The plot as an <svg> element for an HTML page that sets ``color`` and ``--paper``."""
    text = _saved(plot, series, Colors(_INK, _PAPER), "svg").decode("utf-8")
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_PAPER, "var(--paper)")
    # Sizes are the page's: the view box keeps the proportions.
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{plot.title}">{rest}'


def write_png(plot: Plot, series: Sequence[Series], folder: Path) -> Path:
    """Write the plot as NAME.png; the path."""
    path = folder / f"{plot.name}.png"
    path.write_bytes(_saved(plot, series, Colors(_PNG_INK, _PNG_PAPER), "png"))
    return path


def _saved(plot: Plot, series: Sequence[Series], colors: Colors, form: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    rows = -(-plot.panels // COLUMNS)
    size = (10.5, 4.8) if plot.panels == 1 else (10.5, 0.5 + 2.7 * rows)
    style = {
        "font.size": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": plot.name,
        "text.parse_math": False,  # a model's name may hold dollar signs
        "text.color": colors.ink,
        "axes.edgecolor": colors.ink,
        "axes.labelcolor": colors.ink,
        "xtick.color": colors.ink,
        "ytick.color": colors.ink,
        "grid.color": colors.ink,
        "grid.alpha": 0.15,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a browser has the font that we have not
        figure = Figure(figsize=size, layout="constrained", facecolor="none" if form == "svg" else colors.paper)
        plot.draw(figure, series, colors)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None} if form == "svg" else None
        figure.savefig(buffer, format=form, dpi=130, metadata=nothing)
    return buffer.getvalue()
