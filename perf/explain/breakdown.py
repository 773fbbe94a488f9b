"""Where the mean request's time went, part by part, and how the parts add up to what the client measured. Pure.

From traces: each traced request is cut without gaps (`perf.explain.timeline`), so the parts' means add up to the mean
of the traced requests; the client measured all requests. The remainder is what is between the two.

From statistics alone, where the server writes no traces: the members' parts are the server's counters, the hops are the
ensemble's time less its members', and what the server did not see, its own reading and writing, the network and the
client, is one part, known only by subtraction; so nothing is left over, and nothing is proven by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf.explain.counters import PARTS, Counters
from perf.explain.timeline import HOPS_TO_THE_ANSWER, Timeline

OUTSIDE = ("to_server", "receive", "respond", "to_client", "unseen")
ALL_HOPS = "hops"
# Shorter than this on average, a part is not worth a line of its own.
NEGLIGIBLE_MS = 0.0005


@dataclass(frozen=True)
class Part:
    """One line of the table: ``start_ms`` is where it begins in the mean request, ``ms`` its mean length."""

    step: str
    kind: str
    start_ms: float
    ms: float

    @property
    def label(self) -> str:
        """What a person reads."""
        words = _WORDS.get(self.kind)
        if words is not None:
            return words
        if self.kind == "hop":
            if self.step == ALL_HOPS:
                return "all hops (by subtraction)"
            return "to the answer" if self.step == HOPS_TO_THE_ANSWER else f"to {self.step}"
        return f"{self.step}: {self.kind.replace('_', ' ')}"


_WORDS = {
    "to_server": "client to server",
    "receive": "server reads the request",
    "respond": "server writes the answer",
    "to_client": "server to client",
    "unseen": "network, client, reading and writing (by subtraction)",
}


@dataclass(frozen=True)
class Breakdown:
    """``measured_ms`` is the client's mean over ``requests``; ``parts`` follow each other; ``source`` says from what.

    ``beside_ms`` are models that ran beside the path that the answer waited for, and cost it nothing.
    """

    measured_ms: float
    requests: int
    parts: tuple[Part, ...]
    source: str
    sampled: int
    beside_ms: Mapping[str, float]

    @property
    def sum_ms(self) -> float:
        """The parts together."""
        return sum(part.ms for part in self.parts)

    @property
    def remainder_ms(self) -> float:
        """What the parts leave of the measured latency; negative where they are more."""
        return self.measured_ms - self.sum_ms

    @property
    def remainder_percent(self) -> float:
        """The remainder of the measured latency."""
        return 100 * self.remainder_ms / self.measured_ms if self.measured_ms else 0.0

    def ms(self, *kinds: str, step: str | None = None) -> float:
        """All parts of some kinds, of one step or of all."""
        return sum(p.ms for p in self.parts if p.kind in kinds and step in (None, p.step))


def from_timelines(lines: Sequence[Timeline], measured_ms: float, requests: int) -> Breakdown:
    """The mean over the timelines, each part counted as nothing in a request that did not have it."""
    total_ns: dict[tuple[str, str], int] = {}
    beside_ns: dict[str, int] = {}
    for line in lines:
        for segment in line.segments:
            key = (segment.step, segment.kind)
            total_ns[key] = total_ns.get(key, 0) + segment.end_ns - segment.start_ns
        for segment in line.beside:
            beside_ns[segment.step] = beside_ns.get(segment.step, 0) + segment.end_ns - segment.start_ns
    count = max(len(lines), 1)
    parts = _in_a_row([(step, kind, total_ns[step, kind] / count / 1e6) for step, kind in _order(lines)])
    beside = {step: ns / count / 1e6 for step, ns in beside_ns.items()}
    return Breakdown(measured_ms, requests, parts, "traces", len(lines), beside)


def from_counters(
    model: str, steps: Sequence[str], counted: Mapping[str, Counters], measured_ms: float, requests: int
) -> Breakdown:
    """The parts of a model or an ensemble of ``steps`` (in order; empty for a model) from what was counted."""
    own = counted.get(model, Counters())
    count = max(own.requests, 1)
    whole_ms = own.ms_a_request
    rows = []
    for step in steps or (model,):
        part_ns = counted.get(step, Counters()).part_ns
        rows += [(step, part, part_ns.get(part, 0) / count / 1e6) for part in PARTS]
    inside_ms = sum(ms for _, _, ms in rows)
    if own.cache_hits and not own.executions:
        rows, inside_ms = [(model, "cache", whole_ms)], whole_ms
    # Below zero where steps run side by side, or a step's answer started the next before the step's last stamp.
    rows.append((ALL_HOPS, "hop", whole_ms - inside_ms))
    rows.append(("", "unseen", measured_ms - whole_ms))
    return Breakdown(measured_ms, requests, _in_a_row(rows), "statistics", own.requests, {})


def _order(lines: Sequence[Timeline]) -> list[tuple[str, str]]:
    """All parts in the order of the request with the most of them; what that one lacks, behind what it follows."""
    ways = {tuple(dict.fromkeys((s.step, s.kind) for s in line.segments)) for line in lines}
    order: list[tuple[str, str]] = []
    for way in sorted(ways, key=lambda way: (-len(way), way)):
        place = 0
        for key in way:
            if key not in order:
                order.insert(place, key)
            place = order.index(key) + 1
    return order


def _in_a_row(rows: Sequence[tuple[str, str, float]]) -> tuple[Part, ...]:
    parts, start = [], 0.0
    for step, kind, ms in rows:
        parts.append(Part(step, kind, start, ms))
        start += ms
    return tuple(part for part in parts if abs(part.ms) >= NEGLIGIBLE_MS)
