"""What the servers of a comparison did: medians and spread, ratios over the others, and a table of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf import result_files
from perf.contenders.entries import Role
from perf.load_loop import LoadResult


@dataclass(frozen=True)
class Standing:
    """One server at one number of connections: medians over the rounds, with the least and the most.

    The ratios are of ours, within a round: over the best other server at this number of connections (for requests the
    one that served the most, for p99 the one whose was lowest), over the bare limit, and over the framework called in
    the handler. None where there is nothing to compare with. A rival's are None.
    """

    server: str
    role: Role
    connections: int
    requests_per_second: float
    requests_per_second_range: tuple[float, float]
    p50_ms: float
    p99_ms: float
    p99_ms_range: tuple[float, float]
    requests: int
    failures: int
    rps_over_best_other: float | None = None
    p99_over_best_other: float | None = None
    rps_over_limit: float | None = None
    rps_over_framework: float | None = None


HEADER = (
    *("in flight", "server", "req/s (min to max)", "p99 ms (min to max)", "failed"),
    *("req/s : best other", "p99 : best other", "req/s : bare limit", "req/s : framework"),
)
RATIOS = ("rps_over_best_other", "p99_over_best_other", "rps_over_limit", "rps_over_framework")


def compare(runs: Mapping[str, Sequence[LoadResult]], roles: Mapping[str, Role]) -> list[Standing]:
    """The standings at one number of connections; ``runs`` are each server's, a round each.

    A ratio is the median of those within a round: a machine that slows down slows both. One that failed to answer
    requests is the best at nothing: answers that fail are quick.
    """
    sound = [name for name in runs if not sum(run.failures for run in runs[name])]
    others = [name for name in sound if roles[name] == "other"]
    fastest = max(others, key=lambda name: _median(runs[name], "requests_per_second"), default=None)
    steadiest = min(others, key=lambda name: _median(runs[name], "p99_ms"), default=None)
    limit = next((name for name in sound if roles[name] == "limit"), None)
    framework = next((name for name in sound if roles[name] == "framework"), None)
    standings = []
    for name, own in runs.items():
        rates, tails = [run.requests_per_second for run in own], [run.p99_ms for run in own]
        ratios: dict[str, float | None] = dict.fromkeys(RATIOS)
        if roles[name] == "ours":
            values = (
                _ratio(own, runs, fastest, "requests_per_second"),
                _ratio(own, runs, steadiest, "p99_ms"),
                _ratio(own, runs, limit, "requests_per_second"),
                _ratio(own, runs, framework, "requests_per_second"),
            )
            ratios = dict(zip(RATIOS, values, strict=True))
        standings.append(
            Standing(
                server=name,
                role=roles[name],
                connections=own[0].connections,
                requests_per_second=statistics.median(rates),
                requests_per_second_range=(min(rates), max(rates)),
                p50_ms=_median(own, "p50_ms"),
                p99_ms=statistics.median(tails),
                p99_ms_range=(min(tails), max(tails)),
                requests=sum(run.requests for run in own),
                failures=sum(run.failures for run in own),
                **ratios,
            )
        )
    return standings


def _median(runs: Sequence[LoadResult], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


def _ratio(
    own: Sequence[LoadResult], runs: Mapping[str, Sequence[LoadResult]], other: str | None, what: str
) -> float | None:
    if other is None:
        return None
    pairs = [(getattr(mine, what), getattr(its, what)) for mine, its in zip(own, runs[other], strict=True)]
    return statistics.median(mine / its if its else float("inf") for mine, its in pairs)


def rows(standings: Sequence[Standing]) -> list[tuple[str, ...]]:
    """The table's rows, as text."""
    return [
        (
            str(s.connections),
            s.server,
            _spread(s.requests_per_second, s.requests_per_second_range, 0),
            _spread(s.p99_ms, s.p99_ms_range, 1),
            str(s.failures or ""),
            *("" if (ratio := getattr(s, name)) is None else f"{ratio:.2f}" for name in RATIOS),
        )
        for s in standings
    ]


def _spread(median: float, least_and_most: tuple[float, float], digits: int) -> str:
    least, most = least_and_most
    return f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def markdown(standings: Sequence[Standing]) -> list[str]:
    """The standings as the lines of a Markdown table."""
    return result_files.markdown(HEADER, rows(standings))
