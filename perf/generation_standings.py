"""What the contenders of the comparison of generation did, as a table, and what it is held to. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from perf.contenders.entries import Role
from perf.requirement import Requirement, ratio, spread
from perf.stream_load import StreamResult

# Streams -> contender -> a round each.
Runs = Mapping[int, Mapping[str, Sequence[StreamResult]]]

HEADER = (
    *("streams", "server", "tokens/s (min to max)", "first token p50 ms", "p99 ms"),
    *("tokens a response", "load's share of a core", "failed", "tokens/s : bare", "tokens/s : FastAPI"),
)


def rows(runs: Runs, roles: Mapping[str, Role]) -> list[tuple[str, ...]]:
    """Everyone at each number of streams; ratios are of ours, within a round."""
    return [
        (
            str(streams),
            name,
            spread([run.tokens_per_second for run in own], 0),
            f"{_median(own, 'first_token_p50_ms'):.0f}",
            f"{_median(own, 'first_token_p99_ms'):.0f}",
            f"{_median(own, 'tokens_a_response'):.1f}",
            f"{_median(own, 'client_cpu_share'):.2f}" if any(run.client_cpu_share for run in own) else "",
            str(sum(run.failures for run in own) or ""),
            *(
                _cell(_over(runs, streams, name, of(roles, other))) if roles[name] == "ours" else ""
                for other in ("limit", "framework")
            ),
        )
        for streams, at in runs.items()
        for name, own in at.items()
    ]


def of(roles: Mapping[str, Role], role: str) -> str:
    """The contender with a role; empty when there is none."""
    return next((name for name, own in roles.items() if own == role), "")


def requirements(
    runs: Runs,
    arrivals: Runs,
    roles: Mapping[str, Role],
    *,
    grpc: str,
    events: str,
    same_precision: str,
    equal: Mapping[str, float],
) -> list[Requirement]:
    """What must hold, at the most streams that were measured.

    ``same_precision`` is the bare engine in the precision of ours; that with the role "limit" may be in a faster one.

    ``arrivals`` are runs in which one text after the other arrives while others run. ``equal`` is the share of greedy
    texts that came out the same alone and beside others, by contender.
    """
    most = max(runs)
    bare, framework = of(roles, "limit"), of(roles, "framework")
    found = [
        Requirement(f"tokens/s at {most} streams, {what}", _over(runs, most, name, other), least_ratio)
        for what, name, other, least_ratio in (
            ("gRPC : bare engine, our precision", grpc, same_precision, 0.8),
            ("gateway's events : bare engine, our precision", events, same_precision, 0.7),
            ("gRPC : bare engine, its defaults", grpc, bare, 0.8),
            ("gateway's events : bare engine, its defaults", events, bare, 0.7),
            ("gRPC : FastAPI", grpc, framework, 20),
            ("gateway's events : FastAPI", events, framework, 20),
        )
    ]
    for name in (grpc, events):
        waits = ratio(_waits(arrivals, most, name), _waits(arrivals, 1, name))
        what = f"first token of one that arrives while {most - 1} run : while none runs, {name}"
        found.append(Requirement(what, waits, 3, at_least=False))
    what = f"greedy texts that are the same with 1 and with {most} in flight"
    return found + [Requirement(f"{what}, {name}", share, 1) for name, share in equal.items()]


def _over(runs: Runs, streams: int, name: str, other: str) -> float:
    return ratio(_rates(runs, streams, name), _rates(runs, streams, other))


def _rates(runs: Runs, streams: int, name: str) -> list[float]:
    return [run.tokens_per_second for run in runs[streams].get(name, ())]


def _waits(runs: Runs, streams: int, name: str) -> list[float]:
    return [run.first_token_p50_ms for run in runs.get(streams, {}).get(name, ())]


def _median(runs: Sequence[StreamResult], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
