"""What the servers of a comparison did: medians, ratios over the best rival, a table and a plot of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perf.http_load import LoadResult


@dataclass(frozen=True)
class Standing:
    """One server at one number of connections: medians over the rounds.

    The ratios of one of ours are over the best rival at this number of connections: for requests the one that served
    the most, for p99 the one whose was lowest. A rival's are None.
    """

    server: str
    connections: int
    requests_per_second: float
    p99_ms: float
    failures: int
    rps_ratio: float | None = None
    p99_ratio: float | None = None


HEADER = ("connections", "server", "req/s", "over the best FastAPI", "p99 ms", "over the best FastAPI")
COLORS = ("#c4c7c5", "#8a8f94", "#b7d96e", "#76b900")


def compare(runs: Mapping[str, Sequence[LoadResult]], rivals: Collection[str]) -> list[Standing]:
    """The standings at one number of connections; ``runs`` are each server's, a round each.

    A ratio is the median of those within a round: a machine that slows down slows both.
    """
    fastest = max(rivals, key=lambda name: _median_rate(runs[name]))
    steadiest = min(rivals, key=lambda name: _median_p99(runs[name]))
    standings = []
    for name, own in runs.items():
        rps_ratio = p99_ratio = None
        if name not in rivals:
            rps_ratio = statistics.median(
                mine.requests_per_second / other.requests_per_second
                for mine, other in zip(own, runs[fastest], strict=True)
            )
            p99_ratio = statistics.median(
                mine.p99_ms / other.p99_ms for mine, other in zip(own, runs[steadiest], strict=True)
            )
        failures = sum(run.failures for run in own)
        rate, p99_ms = _median_rate(own), _median_p99(own)
        standings.append(Standing(name, own[0].connections, rate, p99_ms, failures, rps_ratio, p99_ratio))
    return standings


def _median_rate(runs: Sequence[LoadResult]) -> float:
    return statistics.median(run.requests_per_second for run in runs)


def _median_p99(runs: Sequence[LoadResult]) -> float:
    return statistics.median(run.p99_ms for run in runs)


def rows(standings: Sequence[Standing]) -> list[tuple[str, ...]]:
    """The table's rows, as text."""
    return [
        (
            str(s.connections),
            s.server,
            f"{s.requests_per_second:.0f}",
            "" if s.rps_ratio is None else f"{s.rps_ratio:.2f}",
            f"{s.p99_ms:.1f}",
            "" if s.p99_ratio is None else f"{s.p99_ratio:.2f}",
        )
        for s in standings
    ]


def write_table(standings: Sequence[Standing], path: Path) -> None:
    """The standings as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "| ---: | --- |" + " ---: |" * (len(HEADER) - 2)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(standings)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_plot(standings: Sequence[Standing], path: Path) -> None:
    """Requests per second and p99 over the number of connections, the servers side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rate, tail) = pyplot.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    levels = sorted({s.connections for s in standings})
    servers = list(dict.fromkeys(s.server for s in standings))
    width = 0.8 / len(servers)
    for index, server in enumerate(servers):
        own = sorted((s for s in standings if s.server == server), key=lambda s: s.connections)
        places = np.arange(len(levels)) + (index - (len(servers) - 1) / 2) * width
        color = COLORS[index % len(COLORS)]
        rate.bar(places, [s.requests_per_second for s in own], width, color=color, label=server)
        tail.bar(places, [s.p99_ms for s in own], width, color=color, label=server)
    for axes, title in ((rate, "requests per second (more is better)"), (tail, "p99 latency in ms (less is better)")):
        axes.set_title(title)
        axes.set_xticks(np.arange(len(levels)), [str(level) for level in levels])
        axes.set_xlabel("connections")
        axes.spines[["top", "right"]].set_visible(False)
        for bars in axes.containers:
            axes.bar_label(bars, fmt="%.0f", fontsize=7)
    figure.legend(*rate.get_legend_handles_labels(), loc="outside lower center", ncols=len(servers), frameon=False)
    figure.suptitle(f"MiniLM int8, one text of 5 to 40 words a request, {os.cpu_count()} cores")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
