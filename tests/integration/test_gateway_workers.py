"""Two workers of `conch gateway`: whichever is asked knows what both have done, and both log in one form."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Triton, WriteModel
from tests.gateway_fixtures import wait_for
from tests.integration.test_gateway_command import Command, started

pytestmark = pytest.mark.integration

REQUESTS = 30


@pytest.fixture(scope="module")
def command(
    triton: Triton, write_python_model: WriteModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    """A gateway of two workers that has answered `REQUESTS` requests, each over a connection of its own."""
    write_python_model(triton.repository, "gw_counted")
    triton.load("gw_counted")
    server = f"{triton.http_url},{triton.grpc_url}"
    arguments = ("--server", server, "--workers", "2", "--log-format", "json")
    with started(tmp_path_factory.mktemp("workers"), *arguments) as command:
        for number in range(REQUESTS):
            headers = {"X-Request-Id": f"number-{number}"}
            answer = httpx.post(f"{command.url}/predict/gw_counted", json={"x": number}, headers=headers, timeout=30)
            assert answer.json() == {"y": number + 1}
        yield command


def answered(command: Command) -> float:
    """How many requests to the model were answered, by one scrape over a connection of its own."""
    families = text_string_to_metric_families(httpx.get(f"{command.url}/metrics", timeout=30).text)
    samples = [s for family in families for s in family.samples if s.name == "conch_gateway_request_seconds_count"]
    return sum(s.value for s in samples if s.labels["model"] == "gw_counted")


def test_each_scrape_counts_both_workers(command: Command) -> None:
    wait_for(lambda: answered(command) == REQUESTS, 10)
    assert [answered(command) for _ in range(8)] == [REQUESTS] * 8


def test_the_page_counts_both_workers_too(command: Command) -> None:
    def looked() -> int:
        return int(httpx.get(f"{command.url}/page/live", timeout=30).json()["models"]["gw_counted"]["answered"])

    wait_for(lambda: looked() == REQUESTS, 10)
    assert [looked() for _ in range(8)] == [REQUESTS] * 8


def lines(command: Command) -> list[dict[str, object]]:
    return [json.loads(line) for line in command.log.splitlines() if line.startswith("{")]


def test_every_request_has_its_line(command: Command) -> None:
    def requests() -> list[dict[str, object]]:
        return [line for line in lines(command) if line.get("route") == "/predict/{model}"]

    wait_for(lambda: len(requests()) == REQUESTS, 10)
    assert {line["request_id"] for line in requests()} == {f"number-{n}" for n in range(REQUESTS)}
    assert {(line["model"], line["status"], line["message"]) for line in requests()} == {("gw_counted", 200, "request")}
    assert {"/metrics", "/page/live"}.isdisjoint({line.get("route") for line in lines(command)})
