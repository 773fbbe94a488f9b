"""Statistics become figures: over HTTP's numbers and gRPC's text alike."""

from __future__ import annotations

from typing import Any

import pytest

from conch.errors import ServerError, ServerUnavailable
from server import ports
from server.status import combine, read

INDEX = [
    {"name": "b", "version": "10", "state": "READY"},
    {"name": "b", "version": "2", "state": "UNAVAILABLE", "reason": "Internal: broken\n"},
    {"name": "a"},
]


def statistics(number: Any) -> list[dict[str, Any]]:
    duration = {"count": number(4), "ns": number(8_000_000)}
    stats = {
        "success": {"count": number(4), "ns": number(40_000_000)},
        "queue": duration,
        "compute_input": {"count": number(4), "ns": number(1_000_000)},
        "compute_infer": {"count": number(4), "ns": number(6_000_000)},
        "compute_output": {"count": number(4), "ns": number(1_000_000)},
        "fail": {},
    }
    row = {"name": "b", "version": "10", "inference_count": number(12), "execution_count": number(3)}
    return [{**row, "inference_stats": stats}]


@pytest.mark.parametrize("number", [int, str])
def test_averages_are_a_request_or_an_execution(number: Any) -> None:
    model = combine(INDEX, statistics(number))[-1]
    assert (model.name, model.version, model.state) == ("b", "10", "READY")
    assert (model.requests, model.failures, model.items, model.executions) == (4, 0, 12, 3)
    assert (model.average_batch, model.queue_ms, model.compute_ms, model.latency_ms) == (4.0, 2.0, 2.0, 10.0)


def test_versions_are_in_the_order_of_numbers_and_reasons_are_tidy() -> None:
    models = combine(INDEX, statistics(int))
    assert [(m.name, m.version) for m in models] == [("a", ""), ("b", "2"), ("b", "10")]
    assert [m.state for m in models] == ["not loaded", "UNAVAILABLE", "READY"]
    assert models[1].reason == "broken"
    assert models[1].average_batch is None


def test_before_the_first_request_there_is_no_average() -> None:
    row = {"name": "b", "version": "10", "inference_stats": {}}
    model = combine(INDEX, [row])[-1]
    assert (model.requests, model.average_batch, model.latency_ms) == (0, None, None)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server_says_how_to_start_one(scheme: str) -> None:
    port = ports.choose("127.0.0.1", 1)[0]
    with pytest.raises(ServerUnavailable, match="no Triton server answers") as raised:
        read(f"{scheme}://127.0.0.1:{port}", timeout_s=5)
    assert "conch serve" in str(raised.value.fix)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ServerError, match="no address"):
        read(url)
