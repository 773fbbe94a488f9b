"""Traces read from a cut file, requests cut into stretches, and stretches added up to what the client measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from perf.explain.breakdown import from_counters, from_timelines
from perf.explain.counters import Counters, between, parse
from perf.explain.explain import matched, step_names
from perf.explain.timeline import Timeline, timelines, with_client
from perf.explain.trace_file import Trace
from perf.explain.trace_file import parse as parse_traces
from perf.explain.trace_file import read as read_traces
from perf.explain.traced_load import Sent

MS = 1_000_000


def leaf(number: int, model: str, start: float, end: float, parent: int | None = 1, queue: float = 1.0) -> Trace:
    """A model's trace: 0.5 ms to the queue, ``queue`` in it, 0.25 ms of input, 1 ms of output, the rest computing."""
    stamps = {
        "REQUEST_START": start,
        "QUEUE_START": start + 0.5,
        "COMPUTE_START": start + 0.5 + queue,
        "COMPUTE_INPUT_END": start + 0.75 + queue,
        "COMPUTE_OUTPUT_START": end - 1,
        "COMPUTE_END": end,
        "REQUEST_END": end + 0.1,
    }
    return Trace(number, model, 1, "r-1", parent, {name: int(ms * MS) for name, ms in stamps.items()})


def root(model: str = "pipe", **more: float) -> Trace:
    stamps = {"HTTP_RECV_START": 1, "HTTP_RECV_END": 2, "REQUEST_START": 3, "QUEUE_START": 3, **more}
    return Trace(1, model, 1, "r-1", None, {name: int(ms * MS) for name, ms in stamps.items()})


# a answers b half a millisecond before its own last stamp; between b and the answer there is a millisecond.
CHAIN = (
    leaf(3, "b", 9.5, 20),
    leaf(2, "a", 4, 10),
    root(INFER_RESPONSE_COMPLETE=21, HTTP_SEND_START=21.5, HTTP_SEND_END=22, REQUEST_END=22.5),
)


def lengths_ms(line: Timeline) -> list[tuple[str, str, float]]:
    return [(s.step, s.kind, s.ms) for s in line.segments if s.ms]


def test_an_ensemble_is_cut_without_gap_or_overlap() -> None:
    (line,) = timelines(CHAIN)
    assert lengths_ms(line) == [
        ("", "receive", 2.0),
        ("a", "hop", 1.0),
        ("a", "hop", 0.5),
        ("a", "queue", 1.0),
        ("a", "compute_input", 0.25),
        ("a", "compute_infer", 3.25),
        ("a", "compute_output", 0.5),
        ("b", "hop", 0.5),
        ("b", "queue", 1.0),
        ("b", "compute_input", 0.25),
        ("b", "compute_infer", 7.75),
        ("b", "compute_output", 1.0),
        ("answer", "hop", 1.0),
        ("", "respond", 1.0),
    ]
    ends = [(s.start_ns, s.end_ns) for s in line.segments]
    assert [start for start, _ in ends[1:]] == [end for _, end in ends[:-1]]


def test_of_steps_side_by_side_the_one_that_was_waited_for_counts() -> None:
    traces = (
        leaf(2, "fast", 4, 8),
        leaf(3, "slow", 4, 12),
        leaf(4, "join", 12, 18),
        root(INFER_RESPONSE_COMPLETE=18.5),
    )
    (line,) = timelines(traces)
    assert list(dict.fromkeys(s.step for s in line.segments if s.step)) == ["slow", "join", "answer"]
    assert [(s.step, s.ms) for s in line.beside] == [("fast", 4.0)]
    assert sum(s.ms for s in line.segments) == 17.5


def test_a_model_alone_ends_where_its_answer_leaves() -> None:
    own = leaf(1, "single", 3, 20, parent=None)
    own = Trace(1, "single", 1, "r-1", None, {**own.at_ns, "INFER_RESPONSE_COMPLETE": int(19.5 * MS)})
    (line,) = timelines([own])
    assert [(kind, ms) for _, kind, ms in lengths_ms(line)] == [
        ("hop", 0.5),
        ("queue", 1.0),
        ("compute_input", 0.25),
        ("compute_infer", 14.25),
        ("compute_output", 0.5),
    ]


def test_an_ensemble_within_an_ensemble_is_taken_apart_too() -> None:
    inner = Trace(2, "inner", 1, "r-1", 1, {"REQUEST_START": 4 * MS, "REQUEST_END": 16 * MS})
    traces = (inner, leaf(3, "deep", 5, 15, parent=2), root("outer", INFER_RESPONSE_COMPLETE=17))
    (line,) = timelines(traces)
    assert "deep" in {s.step for s in line.segments if s.kind == "compute_infer"}
    assert sum(s.ms for s in line.segments) == 16.0


@pytest.mark.parametrize(
    "members",
    [(), (Trace(2, "a", 1, "r-1", 1, {"REQUEST_START": 4 * MS, "QUEUE_START": 4 * MS, "REQUEST_END": 4 * MS}),)],
    ids=["the whole", "a member"],
)
def test_an_answer_from_the_cache_has_a_part_of_its_own(members: tuple[Trace, ...]) -> None:
    (line,) = timelines([*members, root(INFER_RESPONSE_COMPLETE=5)])
    assert "cache" in {s.kind for s in line.segments}
    assert sum(s.ms for s in line.segments) == 4.0


def test_a_request_that_the_file_cut_is_left_out() -> None:
    assert timelines([root()]) == ()
    cut = Trace(2, "a", 1, "r-1", 1, {"REQUEST_START": 4 * MS, "COMPUTE_START": 5 * MS})
    assert timelines([cut, root(INFER_RESPONSE_COMPLETE=21)]) == ()


def test_the_clients_stamps_close_both_ends() -> None:
    (line,) = timelines(CHAIN)
    whole = with_client(line, 0, 23 * MS)
    assert whole is not None
    assert (whole.segments[0].kind, whole.segments[0].ms) == ("to_server", 1.0)
    assert (whole.segments[-1].kind, whole.segments[-1].ms) == ("to_client", 1.0)
    assert sum(s.ms for s in whole.segments) == 23.0


def test_an_answer_read_before_the_server_had_stamped_it_is_no_negative_time() -> None:
    (line,) = timelines(CHAIN)
    whole = with_client(line, 0, int(21.5 * MS))
    assert whole is not None
    assert min(s.ms for s in whole.segments) >= 0
    assert sum(s.ms for s in whole.segments) == 21.5


def test_stamps_of_another_clock_are_not_joined() -> None:
    (line,) = timelines(CHAIN)
    assert with_client(line, 5 * MS, 30 * MS) is None
    other = matched(CHAIN, [Sent("r-1", 500 * MS, 530 * MS)])
    assert [s.kind for s in other[0].segments][:1] == ["receive"]
    assert matched(CHAIN, [Sent("r-1", 0, 23 * MS)])[0].segments[0].kind == "to_server"
    assert matched(CHAIN, [Sent("another", 0, 23 * MS)]) == ()


def rows(trace: Trace) -> list[Mapping[str, object]]:
    """A trace as Triton writes it."""
    head = {"id": trace.id, "model_name": trace.model, "model_version": 1, "request_id": trace.request_id}
    named = head | ({} if trace.parent is None else {"parent_id": trace.parent})
    return [named, *({"id": trace.id, "timestamps": [{"name": n, "ns": at}]} for n, at in trace.at_ns.items())]


def test_a_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    text = json.dumps([row for trace in CHAIN for row in rows(trace)])
    assert parse_traces(text) == CHAIN
    cut = text[: text.index('"HTTP_SEND_END"')]
    assert [t.model for t in parse_traces(cut)] == ["b", "a", "pipe"]
    assert "HTTP_SEND_END" not in parse_traces(cut)[-1].at_ns
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    (tmp_path / "t.json.1").write_text(cut.replace('"id": ', '"id": 7'), encoding="utf-8")
    (tmp_path / "t.json.bak").write_text(text, encoding="utf-8")
    assert [t.id for t in read_traces(tmp_path / "t.json")] == [3, 2, 1, 73, 72, 71]


def test_the_means_add_up_and_what_is_left_is_told() -> None:
    (line,) = timelines(CHAIN)
    (faster,) = timelines([leaf(2, "a", 4, 10), root(INFER_RESPONSE_COMPLETE=11, HTTP_SEND_END=12)])
    where = from_timelines([line, faster], measured_ms=20.0, requests=9)
    assert where.sum_ms == pytest.approx((21 + 11) / 2)
    assert (where.remainder_ms, where.remainder_percent) == (pytest.approx(4.0), pytest.approx(20.0))
    assert where.ms("compute_infer", step="b") == pytest.approx(7.75 / 2)
    assert [p.kind for p in where.parts][:2] == ["receive", "hop"]
    assert [p.kind for p in where.parts][-2:] == ["hop", "respond"]
    starts = [p.start_ms for p in where.parts]
    assert starts == sorted(starts)
    assert (where.sampled, where.requests) == (2, 9)


def test_a_part_that_few_requests_have_stands_where_they_have_it() -> None:
    hit = Trace(2, "a", 1, "r-1", 1, {"REQUEST_START": 4 * MS, "QUEUE_START": 4 * MS, "REQUEST_END": 6 * MS})
    lines = timelines(CHAIN) + timelines([hit, root(INFER_RESPONSE_COMPLETE=21)])
    order = [(p.step, p.kind) for p in from_timelines(lines, 20.0, 2).parts]
    assert sorted(order) == sorted(set(order))
    (cached,) = (place for place, (_, kind) in enumerate(order) if kind == "cache")
    assert order.index(("a", "hop")) < cached < order.index(("answer", "hop"))


def stats(model: str, requests: int, ms: float, *parts: float, executions: int = 0) -> dict[str, object]:
    names = ("queue", "compute_input", "compute_infer", "compute_output")
    timed = {n: {"count": requests, "ns": int(requests * p * MS)} for n, p in zip(names, parts, strict=True)}
    return {
        "name": model,
        "version": "1",
        "inference_count": requests,
        "execution_count": executions or requests,
        "inference_stats": {"success": {"count": requests, "ns": int(requests * ms * MS)}, **timed},
        "batch_stats": [{"batch_size": 2, "compute_infer": {"count": executions}}],
    }


def test_only_what_was_counted_in_between_counts() -> None:
    before = parse([stats("a", 10, 100.0, 1, 1, 90, 1, executions=4)])
    after = parse([stats("a", 30, 40.0, 1, 1, 31, 1, executions=12), stats("new", 5, 1.0, 0, 0, 1, 0)])
    did = between(before, after)
    assert (did["a"].requests, did["a"].executions, did["a"].average_batch) == (20, 8, 2.5)
    assert did["a"].ms_a_request == pytest.approx(10.0)
    assert did["a"].batch_sizes == {2: 8}
    assert did["new"].requests == 5


def test_an_ensembles_own_sums_are_not_counted_twice() -> None:
    # As the server counts: the ensemble's compute is the sum over its members, their queues are not in it.
    counted = between(
        {},
        parse(
            [
                stats("pipe", 10, 20.0, 0.002, 0.2, 14.0, 0.4),
                stats("a", 10, 7.0, 1.0, 0.1, 5.0, 0.2),
                stats("b", 10, 12.0, 2.0, 0.1, 9.0, 0.2),
            ]
        ),
    )
    where = from_counters("pipe", ("a", "b"), counted, 22.0, 10)
    assert where.ms("queue") == pytest.approx(3.0)
    assert where.ms("hop") == pytest.approx(20.0 - 17.6)
    assert where.ms("unseen") == pytest.approx(2.0)
    assert where.sum_ms == pytest.approx(22.0)


def test_statistics_of_a_model_alone_and_of_a_cached_one() -> None:
    counted = between({}, parse([stats("m", 10, 6.0, 1.0, 0.5, 4.0, 0.25)]))
    where = from_counters("m", (), counted, 7.0, 10)
    assert [round(p.ms, 3) for p in where.parts] == [1.0, 0.5, 4.0, 0.25, 0.25, 1.0]
    cached = from_counters("m", (), {"m": Counters(requests=4, request_ns=4 * MS, cache_hits=4)}, 3.0, 4)
    assert [(p.kind, p.ms) for p in cached.parts] == [("cache", 1.0), ("unseen", 2.0)]


def test_the_models_of_a_pipeline_are_found_through_ensembles() -> None:
    from conch.model_config import parse as parse_config

    def ensemble(*members: str) -> object:
        steps = " ".join(f'step {{ model_name: "{m}" }}' for m in members)
        return parse_config(f"ensemble_scheduling {{ {steps} }}")

    configs = {"outer": ensemble("a", "inner", "c"), "inner": ensemble("b", "a")}
    configs |= {name: parse_config(f'name: "{name}"') for name in "abc"}
    assert step_names(configs, "outer") == ("a", "b", "c")
    assert step_names(configs, "a") == ()
