"""What the gateway counts and logs of requests that were really sent."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.parrot import add_parrot
from tests.gateway_fixtures import RunningGateway, running_gateway, wait_ready

pytestmark = pytest.mark.integration

SECRET = "a prompt that nobody but the model may read"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    body: bytes


def ask(gateway: RunningGateway, path: str, document: object = None, **headers: str) -> Reply:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(
        gateway.url + path, data=data, headers={"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return Reply(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.headers, error.read())


def scrape(gateway: RunningGateway) -> dict[tuple[str, ...], float]:
    """Samples by (name, route, model, status or reason); buckets left out."""
    text = ask(gateway, "/metrics").body.decode()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            parts = (labels.get("route"), labels.get("model"), labels.get("status") or labels.get("reason"))
            if "le" not in labels:
                found[(sample.name.removeprefix("conch_gateway_"), *(part for part in parts if part is not None))] = (
                    sample.value
                )
    return found


@pytest.fixture(scope="module")
def observed(triton: Any, write_python_model: Any) -> Iterator[RunningGateway]:
    """A gateway of our own before a model that adds one, and one that repeats its prompt."""
    write_python_model(triton.repository, "observed_add")
    triton.load("observed_add")
    add_parrot(triton, "observed_parrot")
    with running_gateway(triton) as running:
        wait_ready(running)
        yield running


def wait_for(gateway: RunningGateway, key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    """The figures, as soon as one of them is due: a request is counted just after its answer was read."""
    ends_s = time.monotonic() + 10
    while (found := scrape(gateway)).get(key) != value and time.monotonic() < ends_s:
        time.sleep(0.05)
    return found


def test_counts_what_was_sent(observed: RunningGateway) -> None:
    replies = [ask(observed, "/predict/observed_add", {"x": 1.0}).status for _ in range(3)]
    replies.append(ask(observed, "/predict/observed_add", {"x": "one"}).status)
    replies.append(ask(observed, "/predict/nobody_has_this", {"x": 1.0}).status)
    replies.append(ask(observed, "/nowhere/at/all").status)
    assert replies == [200, 200, 200, 400, 404, 404]
    route = "/predict/{model}"
    found = wait_for(observed, ("request_seconds_count", "", "", "404"), 1)
    assert found["request_seconds_count", route, "observed_add", "200"] == 3
    assert found["request_seconds_count", route, "observed_add", "400"] == 1
    assert found["request_seconds_count", route, "", "404"] == 1
    assert found["request_seconds_count", "", "", "404"] == 1
    assert 0 < found["request_seconds_sum", route, "observed_add", "200"] < 60
    assert found["in_flight", "observed_add"] == 0


def test_counts_tokens_and_the_time_to_the_first(observed: RunningGateway) -> None:
    body = {"model": "observed_parrot", "messages": [{"role": "user", "content": "polly wants"}], "max_tokens": 5}
    assert ask(observed, "/v1/chat/completions", {**body, "stream": True}).status == 200
    route, model = "/v1/chat/completions", "observed_parrot"
    found = wait_for(observed, ("request_seconds_count", route, model, "200"), 1)
    assert found["first_token_seconds_count", route, model] == 1
    assert 0 < found["first_token_seconds_sum", route, model] < found["request_seconds_sum", route, model, "200"]
    assert found["output_tokens_sum", route, model] == 5
    assert found["input_tokens_sum", route, model] == 3  # the role is a word, too


def test_a_request_keeps_the_id_that_it_came_with(observed: RunningGateway) -> None:
    given = ask(observed, "/predict/observed_add", {"x": 1.0}, **{"X-Request-Id": "order-66"})
    assert given.headers["X-Request-Id"] == "order-66"
    made = ask(observed, "/predict/observed_add", {"x": 1.0}, **{"X-Request-Id": "no id: it has blanks"})
    assert len(made.headers["X-Request-Id"]) == 32


def lines_of(caplog: pytest.LogCaptureFixture, request_id: str) -> list[logging.LogRecord]:
    return [r for r in caplog.records if getattr(r, "fields", {}).get("request_id") == request_id]


def wait_for_line(caplog: pytest.LogCaptureFixture, request_id: str) -> None:
    ends_s = time.monotonic() + 10
    while not lines_of(caplog, request_id) and time.monotonic() < ends_s:
        time.sleep(0.02)


def test_the_access_log_says_who_and_what_and_never_the_prompt(
    observed: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"model": "observed_parrot", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 2}
    with caplog.at_level(logging.INFO, logger="conch"):
        ask(observed, "/v1/chat/completions?also=" + SECRET.replace(" ", "%20"), body, **{"X-Request-Id": "quiet-1"})
        wait_for_line(caplog, "quiet-1")
    (line,) = lines_of(caplog, "quiet-1")
    assert line.fields["model"] == "observed_parrot"  # type: ignore[attr-defined]
    assert line.fields["status"] == 200  # type: ignore[attr-defined]
    assert line.fields["output_tokens"] == 2  # type: ignore[attr-defined]
    everything = " ".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records)
    assert "nobody" not in everything
