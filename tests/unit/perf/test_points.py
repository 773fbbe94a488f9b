from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from conch.errors import ConchError
from perf.points import Load, Machine, Point, RunResult, from_document, load, now, save, this_machine, to_document

LOAD = Load("spam", concurrency=8)
POINT = Point(
    LOAD,
    requests_per_second=100.5,
    inferences_per_second=100.5,
    latency_ms={"avg": 1.0, "p50": 0.9, "p90": 1.2, "p95": 1.4, "p99": 2.0},
    server_ms={"queue": 0.1, "compute_input": 0.1, "compute_infer": 0.5, "compute_output": 0.1},
    average_batch=1.5,
    requests=1000,
    stable=False,
    warnings=("unstable",),
    batch_sizes={1: 10, 2: 5},
)
RESULT = RunResult(
    name="spam-smoke",
    at="2026-01-02T03:04:05+00:00",
    machine=Machine("a cpu", 2, 8.0, "3.11", "2.51.0", "Linux"),
    model="spam",
    version="1",
    config_text='name: "spam"',
    points=(POINT, dataclasses.replace(POINT, batch_sizes=None, average_batch=None)),
    notes=("inputs: some",),
)


def test_a_result_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = save(RESULT, tmp_path / "new")
    assert path.name == "spam-smoke-20260102T030405.json"
    assert load(path) == RESULT


def test_a_result_is_never_written_over(tmp_path: Path) -> None:
    first, second = save(RESULT, tmp_path), save(dataclasses.replace(RESULT, model="other"), tmp_path)
    assert first != second
    assert (load(first).model, load(second).model) == ("spam", "other")


def test_keys_carry_units_and_a_format() -> None:
    document = to_document(RESULT)
    assert document["format"] == 1
    assert {"requests_per_second", "latency_ms", "server_ms"} <= document["points"][0].keys()
    assert {"window_ms", "request_rate_per_second", "stability_percent"} <= document["points"][0]["load"].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"points": [{"load": {"model": "x"}}]},
        {"machine": {"cpu": "x"}},
        {"points": 3},
        {"unknown": 1},
    ],
)
def test_another_document_is_refused(change: dict[str, Any]) -> None:
    document = {**json.loads(json.dumps(to_document(RESULT))), **change}
    with pytest.raises(ConchError):
        from_document(document)


@pytest.mark.parametrize("text", [None, "no json", "[]", "{}"])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConchError) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "in flight"),
        ({"concurrency": 1, "request_rate_per_second": 1.0}, "in flight"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1, "protocol": "udp"}, "protocol"),
        ({"concurrency": 1, "shared_memory": "cuda"}, "shared_memory"),
        ({"concurrency": 1, "arrivals": "poisson"}, "Poisson"),
        ({"concurrency": 1, "streaming": True, "protocol": "http"}, "Streaming"),
        ({"concurrency": 1, "percentile": 100}, "percentile"),
        ({"concurrency": 1, "window_ms": 0}, "window_ms"),
        ({"concurrency": 1, "batch_size": -1}, "batch_size"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConchError, match=says):
        Load("spam", **fields)


@pytest.mark.parametrize(
    ("made", "label"),
    [
        (LOAD, "8 in flight"),
        (Load("spam", request_rate_per_second=100.0), "100/s"),
        (Load("spam", request_rate_per_second=2.5, arrivals="poisson"), "2.5/s poisson"),
    ],
)
def test_a_load_has_a_short_name(made: Load, label: str) -> None:
    assert made.label == label


def test_this_machine_is_described() -> None:
    machine = this_machine("2.51.0")
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gb > 0
    assert now().endswith("+00:00")
