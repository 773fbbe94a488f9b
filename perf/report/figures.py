"""How each plot of a report is drawn onto a matplotlib figure. Pure but for the figure that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perf.report.results import PERCENTILES, SERVER_PARTS, Row, Series

MAX_PANELS = 9
COLUMNS = 3
# With more series than this, a load is written only at each line's last mark.
NUMBERED = 4
# Medium tones, to be told apart on white and on black, and by most who see colors otherwise.
COLORS = ("#2f86c9", "#e08a1e", "#2f9e6e", "#c9508f", "#8b6fd0", "#b0a12c", "#4fb3bf", "#d0603f", "#7d8790", "#94653c")
PERCENTILE_COLORS = dict(zip(PERCENTILES, ("#4c9ed9", "#5b7fe0", "#9168d0", "#cf4f92"), strict=True))
PART_COLORS = ("#e0912f", "#5aa9d6", "#3f9b63", "#9a7bd0", "#8f979e")
PART_NAMES = ("queue", "compute input", "compute infer", "compute output", "network and client")
BATCH_COLORS = ("#3d6fb4", "#4a97b8", "#4fb39a", "#8fba5b", "#d9b13b", "#e0843a", "#d1574d", "#b04a86")

Figure = Any
Axes = Any


@dataclass(frozen=True)
class Colors:
    """What text and lines are drawn in, and what lies behind them."""

    ink: str
    paper: str


def throughput_latency(figure: Figure, series: Sequence[Series], colors: Colors) -> None:
    """Latency over throughput, p50 and p99, a line a series, the load's level at each mark."""
    axes = figure.subplots()
    handles, names = [], []
    for index, one in enumerate(series):
        color = COLORS[index % len(COLORS)]
        for percentile, marker, dashes in (("p50", "o", "-"), ("p99", "^", "--")):
            rows = [row for row in one.rows if percentile in row.point.latency_ms]
            rates = [row.point.inferences_per_second for row in rows]
            latencies = [row.point.latency_ms[percentile] for row in rows]
            (line,) = axes.plot(rates, latencies, dashes, color=color, linewidth=1.4)
            for row, x, y in zip(rows, rates, latencies, strict=True):
                fill = color if row.point.stable else colors.paper
                axes.plot(x, y, marker, color=color, markerfacecolor=fill, markersize=6, zorder=3)
            if percentile == "p50":
                handles.append(line)
                names.append(_words(one.label))
            if percentile == "p99" and rows:
                _number(axes, one, rates, latencies, last_only=len(series) > NUMBERED)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    _plain_log(axes)
    axes.set_xlabel("inferences per second")
    axes.set_ylabel("latency in ms (log)")
    for label, marker, dashes in (("p50", "o", "-"), ("p99", "^", "--")):
        (line,) = axes.plot([], [], dashes, marker=marker, color=colors.ink, linewidth=1.4)
        handles.append(line)
        names.append(label)
    figure.legend(handles, names, loc="outside right upper", fontsize=8.5)


def _number(axes: Axes, series: Series, rates: Sequence[float], latencies: Sequence[float], *, last_only: bool) -> None:
    """Write the load at each mark, or at the highest load alone where marks are many."""
    marks = list(zip(series.levels, rates, latencies, strict=False))
    for text, x, y in marks[-1:] if last_only else marks:
        axes.annotate(text, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)


def percentiles(figure: Figure, series: Sequence[Series], colors: Colors) -> None:
    """Latency percentiles over the load's levels, a panel a series."""
    panels = _panels(figure, series[:MAX_PANELS], "latency in ms (log)")
    handles: dict[str, Any] = {}
    for axes, one in panels:
        places = range(len(one.rows))
        for percentile in PERCENTILES:
            if not all(percentile in row.point.latency_ms for row in one.rows):
                continue
            color = PERCENTILE_COLORS[percentile]
            values = [row.point.latency_ms[percentile] for row in one.rows]
            (handles[percentile],) = axes.plot(places, values, color=color, linewidth=1.6)
            for place, value, row in zip(places, values, one.rows, strict=True):
                fill = color if row.point.stable else colors.paper
                axes.plot(place, value, "o", color=color, markerfacecolor=fill, markersize=5)
        axes.set_yscale("log")
    for axes, _ in panels:  # they share one scale, that of all
        _plain_log(axes)
    _legend(figure, list(handles.values()), list(handles))


def time_parts(figure: Figure, series: Sequence[Series], colors: Colors) -> None:
    """The parts of the mean latency as stacked bars of 100 %, above them the latency in ms, a panel a series."""
    timed = [one for one in series if any(row.point.server_ms for row in one.rows)][:MAX_PANELS]
    for axes, one in _panels(figure, timed, "share of the mean latency in %"):
        bottom = [0.0] * len(one.rows)
        for part, color in enumerate(PART_COLORS):
            values = [_parts(row)[part] for row in one.rows]
            hatches = ["" if row.point.stable else "///" for row in one.rows]
            drawn = axes.bar(
                range(len(values)), values, 0.7, bottom, color=color, edgecolor=colors.paper, linewidth=0.5
            )
            for bar, hatch in zip(drawn, hatches, strict=True):
                bar.set_hatch(hatch)
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        for place, row in enumerate(one.rows):
            _above(axes, place, bottom[place], row.point.latency_ms.get("avg"))
        axes.set_ylim(0, 112)
    _legend(figure, _patches(PART_COLORS), PART_NAMES)


def _parts(row: Row) -> list[float]:
    """The five parts of the mean latency, in percent of their sum; zeros where the server told nothing."""
    parts = [*(row.point.server_ms.get(part, 0.0) for part in SERVER_PARTS), row.network_and_client_ms or 0.0]
    total = sum(parts) if row.point.server_ms else 0.0
    return [100.0 * part / total if total else 0.0 for part in parts]


def _patches(colors: Sequence[str]) -> list[Any]:
    """What a legend shows for stacked bars: their colors, without what a single bar is marked with."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=color) for color in colors]


def _above(axes: Axes, place: int, top: float, value: float | None) -> None:
    """Write a figure above a bar."""
    if value is not None:
        text = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        axes.annotate(text, (place, top), xytext=(0, 2), textcoords="offset points", ha="center", size=7.5)


def batch_shares(figure: Figure, series: Sequence[Series], colors: Colors) -> None:
    """Shares of executions by their rows as stacked bars, a panel a series."""
    sized = [one for one in series if any(row.point.batch_sizes for row in one.rows)][:MAX_PANELS]
    groups = batch_groups({size for one in sized for row in one.rows for size in row.point.batch_sizes or {}})
    bars: dict[str, Any] = {}
    for axes, one in _panels(figure, sized, "share of executions in %"):
        bottom = [0.0] * len(one.rows)
        for index, (name, sizes) in enumerate(groups.items()):
            values = [_share(row.point.batch_sizes or {}, sizes) for row in one.rows]
            color = BATCH_COLORS[index % len(BATCH_COLORS)]
            drawn = axes.bar(
                range(len(values)), values, 0.7, bottom, color=color, edgecolor=colors.paper, linewidth=0.5
            )
            bars[name] = drawn[0]
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        for place, row in enumerate(one.rows):
            _above(axes, place, bottom[place], row.point.average_batch)
        axes.set_ylim(0, 112)
    _legend(figure, list(bars.values()), [f"{name} rows" if name != "1" else "1 row" for name in bars])


def _share(sizes: Mapping[int, int], group: range) -> float:
    """The share, in percent, of executions whose rows lie in the group."""
    total = sum(sizes.values())
    return 100.0 * sum(count for rows, count in sizes.items() if rows in group) / total if total else 0.0


def batch_groups(sizes: set[int]) -> dict[str, range]:
    """The sizes by themselves while they are few, otherwise up to each power of two: 1, 2, 3-4, 5-8, ..."""
    if len(sizes) <= len(BATCH_COLORS):
        return {str(size): range(size, size + 1) for size in sorted(sizes)}
    groups: dict[str, range] = {}
    low = high = 1
    while low <= max(sizes):
        last_color = len(groups) == len(BATCH_COLORS) - 1
        high = max(high, max(sizes)) if last_color else high
        if any(size in range(low, high + 1) for size in sizes):
            groups[str(low) if low == high else f"{low}-{high}"] = range(low, high + 1)
        low, high = high + 1, high * 2
    return groups


def average_batches(figure: Figure, series: Sequence[Series], colors: Colors) -> None:
    """Rows an execution over the load's levels, a line a series."""
    axes = figure.subplots()
    levels = sorted({(asked(row), level) for one in series for row, level in zip(one.rows, one.levels, strict=True)})
    places = {level: place for place, (_, level) in enumerate(levels)}
    handles, names = [], []
    for index, one in enumerate(series):
        color = COLORS[index % len(COLORS)]
        rows = [(places[level], row) for row, level in zip(one.rows, one.levels, strict=True)]
        told = [(place, row) for place, row in rows if row.point.average_batch is not None]
        (line,) = axes.plot([p for p, _ in told], [row.point.average_batch for _, row in told], color=color)
        for place, row in told:
            fill = color if row.point.stable else colors.paper
            axes.plot(place, row.point.average_batch, "o", color=color, markerfacecolor=fill, markersize=6)
        handles.append(line)
        names.append(_words(one.label))
    axes.set_xticks(range(len(levels)), [level for _, level in levels])
    axes.set_xlabel(_load_axis(series))
    axes.set_ylabel("rows an execution")
    axes.set_ylim(bottom=0)
    figure.legend(handles, names, loc="outside right upper", fontsize=8.5)


def asked(row: Row) -> float:
    """How much load a point is for, to put points in order."""
    return float(row.point.load.concurrency or row.point.load.request_rate_per_second or 0)


def _panels(figure: Figure, series: Sequence[Series], label: str) -> list[tuple[Axes, Series]]:
    """An axis for each series, on a common scale, with the levels below."""
    columns = min(COLUMNS, len(series))
    rows = -(-len(series) // columns)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    cells = [axes for row in grid for axes in row]
    for axes in cells[len(series) :]:
        axes.set_visible(False)
    found = list(zip(cells, series, strict=False))
    for index, (axes, one) in enumerate(found):
        stars = ["" if row.point.stable else "*" for row in one.rows]
        ticks = [level + star for level, star in zip(one.levels, stars, strict=True)]
        axes.set_xticks(range(len(ticks)), ticks, rotation=45 if max(map(len, ticks)) > 4 else 0)
        axes.grid(visible=False, axis="x")
        axes.set_title(_words(one.label), fontsize=9.5)
        axes.set_xlabel(_load_axis([one]))
        if index % columns == 0:
            axes.set_ylabel(label)
    return found


def _load_axis(series: Sequence[Series]) -> str:
    closed = {row.point.load.concurrency is not None for one in series for row in one.rows}
    if closed == {True}:
        return "requests in flight"
    return "requests asked per second" if closed == {False} else "in flight, or asked per second"


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    figure.legend(handles, names, loc="outside lower center", ncols=max(1, len(names)), fontsize=8.5)


def _plain_log(axes: Axes) -> None:
    """Label a logarithmic axis with plain numbers, also between powers of ten when it spans few."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axes.get_ylim()
    if low <= 0:
        return
    wide = high / low > 100
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _words(label: str, limit: int = 48) -> str:
    """A label that is safe in a legend: printable, not too long, and never left out for a leading underscore."""
    text = "".join(character for character in label if character.isprintable())
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return f" {text}" if text.startswith("_") else text
