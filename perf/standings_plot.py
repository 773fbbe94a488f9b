"""The standings as a picture: a row a workload, a bar a server, ours green, the limit a dashed line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perf.standings import Standing

COLORS = {"ours": "#76b900", "other": "#8a8f94", "framework": "#c4c7c5", "limit": "#ffffff"}


def write_plot(standings: Mapping[str, Sequence[Standing]], titles: Mapping[str, str], note: str, path: Path) -> None:
    """Requests per second at each number of connections, and the p99 at the highest; whiskers are min and max.

    ``standings`` and ``titles`` go by workload; ``note`` stands below.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    levels = sorted({s.connections for some in standings.values() for s in some})
    counts = [len({s.server for s in some}) for some in standings.values()]
    figure, grid = pyplot.subplots(
        len(standings),
        len(levels) + 1,
        figsize=(4 + 3.1 * (len(levels) + 1), 1.2 + sum(0.8 + 0.32 * count for count in counts)),
        squeeze=False,
        sharey="row",
        gridspec_kw={"height_ratios": counts},
        layout="constrained",
    )
    for line, (name, some) in zip(grid, standings.items(), strict=True):
        for axes, level in zip(line, levels, strict=False):
            own = [s for s in some if s.connections == level]
            values = [(s.requests_per_second, s.requests_per_second_range) for s in own]
            _bars(axes, own, values)
            axes.set_title(f"\n\nrequests/s, {level} in flight", fontsize=9, loc="left")
            for s in own:
                if s.role == "limit":
                    axes.axvline(s.requests_per_second, color="#444444", linestyle="--", linewidth=1, zorder=0)
        last = [s for s in some if s.connections == levels[-1]]
        _bars(line[-1], last, [(s.p99_ms, s.p99_ms_range) for s in last if s.role != "limit"], skip_limit=True)
        line[-1].set_title(f"p99 in ms, {levels[-1]} in flight (less is better)", fontsize=9, loc="left")
        heading = line[0].annotate(
            f"{name}: {titles[name]}",
            (0, 1),
            xytext=(-150, 22),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=11,
            fontweight="bold",
        )
        heading.set_in_layout(False)  # it is wider than its column, and the columns are to stand close
    figure.supxlabel(note, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(
    axes: Any,
    own: Sequence[Standing],
    values: Sequence[tuple[float, tuple[float, float]]],
    *,
    skip_limit: bool = False,
) -> None:
    places = [place for place, s in enumerate(own) if not (skip_limit and s.role == "limit")]
    lengths = [value for value, _ in values]
    spread = [
        [max(0.0, value - least) for value, (least, _) in values],
        [max(0.0, most - value) for value, (_, most) in values],
    ]
    colors = [COLORS[own[place].role] for place in places]
    edges = ["#444444" if own[place].role == "limit" else "none" for place in places]
    axes.barh(places, lengths, 0.72, color=colors, edgecolor=edges, xerr=spread, error_kw={"lw": 0.8, "alpha": 0.6})
    for place, (value, (_, most)) in zip(places, values, strict=True):
        axes.annotate(
            f"{value:,.0f}" if value >= 10 else f"{value:.1f}",
            (max(value, most), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(own)), [s.server for s in own], fontsize=8)
    axes.set_ylim(len(own) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * max([most for _, (_, most) in values], default=1.0))
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
