from __future__ import annotations

import pytest

from gateway.observe.metrics import SECONDS, PrometheusMetrics
from gateway.page.figures import by_model
from gateway.request_info import Record, RequestInfo


def finished(metrics: PrometheusMetrics, status: int, seconds: float, **record: object) -> None:
    route, key = record.pop("route", "/a"), record.pop("key_id", "ada")
    known = Record(answered_by="spam", key_id=str(key), **record)  # type: ignore[arg-type]
    metrics.finished(RequestInfo("id", str(route), 0.0, 1.0, record=known), status, seconds)


def test_adds_up_routes_and_keys_and_tells_outcomes_apart() -> None:
    metrics = PrometheusMetrics()
    finished(metrics, 200, 0.004, output_tokens=3, cache="hit", first_token_at_s=0.0021)
    finished(metrics, 200, 0.004, route="/b", output_tokens=4, cache="miss")
    finished(metrics, 200, 99.0, key_id="bob")
    finished(metrics, 429, 0.001)
    finished(metrics, 499, 0.001)
    finished(metrics, 503, 0.001)
    metrics.in_flight("spam", 2)
    figures = by_model(metrics.families())["spam"]
    assert (figures.answered, figures.refused, figures.failed) == (3, 1, 1)
    assert (figures.output_tokens, figures.cache_hits, figures.in_flight) == (7, 1, 2)
    assert figures.buckets[SECONDS.index(0.005)] == 2
    assert figures.buckets[-1] == 1
    assert sum(figures.buckets) == 3
    assert figures.seconds == pytest.approx(99.008)
    assert figures.first_token_seconds == pytest.approx(0.0021)
    assert figures.first_token_buckets[SECONDS.index(0.003)] == sum(figures.first_token_buckets) == 1


def test_requests_to_no_model_are_nobodys() -> None:
    metrics = PrometheusMetrics()
    metrics.finished(RequestInfo("id", "/health", 0.0, 1.0), 200, 0.001)
    assert by_model(metrics.families()) == {}
