"""A request's way through the server, cut into stretches that follow each other without gap or overlap. Pure.

An ensemble's members overlap a little: a member's answer starts the next one before the member's own last stamp, and
members may run side by side. What counts is the path that the answer waited for. It is found from its end: the member
that answered last, then the one that it had waited for, and so on. A member's output ends where the next begins.

    to_server   the client has sent; the server has not yet begun to read       (client and server on one clock)
    receive     the server reads the request and takes it apart
    hop         between members of an ensemble, before the first and behind the last
    queue, compute_input, compute_infer, compute_output     as Triton's statistics name them
    cache       an answer from the response cache
    respond     the server writes the answer
    to_client   until the client has read it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf.explain.trace_file import Trace

HOPS_TO_THE_ANSWER = "answer"
COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Segment:
    """A stretch of a request's time: ``step`` is the model, or where a hop leads to; "" outside of all models."""

    step: str
    kind: str
    start_ns: int
    end_ns: int

    @property
    def ms(self) -> float:
        """Its length in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(frozen=True)
class Timeline:
    """One request: its segments in order, and the models that ran beside the path that the answer waited for."""

    request_id: str
    segments: tuple[Segment, ...]
    beside: tuple[Segment, ...] = ()


def timelines(traces: Sequence[Trace]) -> tuple[Timeline, ...]:
    """The timelines of all whole requests among the traces; those that the file's end or an error cut are left out."""
    children: dict[int, list[Trace]] = {}
    for trace in traces:
        if trace.parent is not None:
            children.setdefault(trace.parent, []).append(trace)
    roots = (t for t in traces if t.parent is None and {"REQUEST_START", "INFER_RESPONSE_COMPLETE"} <= t.at_ns.keys())
    return tuple(line for root in roots if (line := _timeline(root, children)) is not None)


def with_client(line: Timeline, sent_ns: int, done_ns: int) -> Timeline | None:
    """The timeline with the client's share at both ends; None when the stamps are not of the client's clock."""
    first, last = line.segments[0].start_ns, line.segments[-1].end_ns
    # The server stamps the end of sending when the client may have read the answer already.
    end = min(last, done_ns)
    if first < sent_ns or line.segments[-1].start_ns > done_ns:
        return None
    inner = [Segment(s.step, s.kind, s.start_ns, min(s.end_ns, end)) for s in line.segments]
    outer = (Segment("", "to_server", sent_ns, first), *inner, Segment("", "to_client", end, done_ns))
    return Timeline(line.request_id, outer, line.beside)


def _timeline(root: Trace, children: Mapping[int, Sequence[Trace]]) -> Timeline | None:
    at = root.at_ns
    start, end = at["REQUEST_START"], at["INFER_RESPONSE_COMPLETE"]
    inner, beside = _inside(root, children, start, end)
    if inner is None:
        return None
    received = at.get("HTTP_RECV_START", at.get("GRPC_WAITREAD_END", start))
    sent = at.get("HTTP_SEND_END", at.get("GRPC_SEND_END", end))
    segments = [
        Segment("", "receive", min(received, start), start),
        *inner,
        Segment("", "respond", end, max(sent, end)),
    ]
    return Timeline(root.request_id, tuple(segments), tuple(beside))


def _inside(
    trace: Trace, children: Mapping[int, Sequence[Trace]], start: int, end: int
) -> tuple[list[Segment] | None, list[Segment]]:
    """The segments from ``start`` to ``end`` of one model, and what ran beside them; None when a stamp is missing."""
    if "COMPUTE_START" in trace.at_ns:
        return _leaf(trace, start, end), []
    members = [t for t in children.get(trace.id, ()) if t.at_ns.get("REQUEST_START", end) < end]
    if not members:
        return [Segment(trace.model, "cache", start, end)], []
    path: list[Trace] = []
    until = end
    while ready := [
        t for t in members if t not in path and _answered_ns(t) <= until and t.at_ns["REQUEST_START"] < until
    ]:
        path.insert(0, max(ready, key=_answered_ns))
        until = path[0].at_ns["REQUEST_START"]
    if not path:
        return None, []
    segments = [Segment(path[0].model, "hop", start, path[0].at_ns["REQUEST_START"])]
    beside = [
        Segment(t.model, "beside", t.at_ns["REQUEST_START"], min(_ended_ns(t), end)) for t in members if t not in path
    ]
    for index, member in enumerate(path):
        is_last = index == len(path) - 1
        limit = end if is_last else path[index + 1].at_ns["REQUEST_START"]
        begun, ended = member.at_ns["REQUEST_START"], min(_ended_ns(member), limit)
        inner, more = _inside(member, children, begun, ended)
        if inner is None:
            return None, []
        beside += more
        segments += [*inner, Segment(HOPS_TO_THE_ANSWER if is_last else path[index + 1].model, "hop", ended, limit)]
    return segments, beside


def _leaf(trace: Trace, start: int, end: int) -> list[Segment] | None:
    """The segments of one model that computes; an answer that left early cuts what comes behind it."""
    names = ("QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START")
    if any(name not in trace.at_ns for name in names):
        return None
    queued, begun, fed, computed = (min(max(trace.at_ns[name], start), end) for name in names)
    return [
        Segment(trace.model, "hop", start, queued),
        Segment(trace.model, "queue", queued, begun),
        Segment(trace.model, "compute_input", begun, fed),
        Segment(trace.model, "compute_infer", fed, computed),
        Segment(trace.model, "compute_output", computed, end),
    ]


def _answered_ns(trace: Trace) -> int:
    """The earliest that a model's answer can have gone on."""
    at = trace.at_ns
    return at.get("COMPUTE_OUTPUT_START", at.get("INFER_RESPONSE_COMPLETE", at.get("QUEUE_START", at["REQUEST_START"])))


def _ended_ns(trace: Trace) -> int:
    at = trace.at_ns
    return at.get("COMPUTE_END", at.get("INFER_RESPONSE_COMPLETE", at.get("REQUEST_END", at["REQUEST_START"])))
