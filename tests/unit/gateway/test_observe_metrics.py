"""What is counted, read back with Prometheus' own parser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe import workers
from gateway.observe.metrics import MOST_UNCHECKED_NAMES, PrometheusMetrics
from gateway.request_info import Record, RequestInfo

LABELS = {"route": "/predict/{model}", "model": "spam", "key": "ada"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def info(route: str = "/predict/{model}", **record: object) -> RequestInfo:
    return RequestInfo("id", route, 100.0, 160.0, record=Record(**{"key_id": "ada", **record}))  # type: ignore[arg-type]


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"conch_gateway_{name}", tuple(sorted(labels.items()))))


def test_counts_what_a_record_says() -> None:
    metrics = PrometheusMetrics()
    record = {"answered_by": "spam", "input_tokens": 7, "output_tokens": 20, "first_token_at_s": 100.03, "cache": "hit"}
    metrics.finished(info(**record), 200, 0.004)
    metrics.finished(info(answered_by="spam"), 200, 0.2)
    found = samples(metrics.text())
    assert value(found, "request_seconds_count", **LABELS, status="200") == 2
    assert value(found, "request_seconds_bucket", **LABELS, status="200", le="0.005") == 1
    assert value(found, "request_seconds_sum", **LABELS, status="200") == pytest.approx(0.204)
    assert value(found, "first_token_seconds_count", **LABELS) == 1
    assert value(found, "first_token_seconds_sum", **LABELS) == pytest.approx(0.03)
    assert value(found, "input_tokens_sum", **LABELS) == 7
    assert value(found, "output_tokens_sum", **LABELS) == 20
    assert value(found, "cache_total", **LABELS, result="hit") == 1


@pytest.mark.parametrize(
    ("status", "noted", "reason"),
    [(429, "queue", "queue"), (401, "", "key"), (403, "", "permission"), (413, "", "size")],
)
def test_a_refusal_has_its_reason_and_the_name_that_was_asked_for(status: int, noted: str, reason: str) -> None:
    metrics = PrometheusMetrics()
    metrics.finished(info(model="spam", refused=noted), status, 0.0001)
    found = samples(metrics.text())
    assert value(found, "refused_total", **LABELS, reason=reason) == 1
    assert value(found, "request_seconds_count", **LABELS, status=str(status)) == 1


def asked_for_many_names() -> PrometheusMetrics:
    metrics = PrometheusMetrics()
    for number in range(MOST_UNCHECKED_NAMES + 50):
        metrics.finished(info(model=f"made up {number}"), 403, 0.001)
        metrics.finished(info(model=f"unknown {number}"), 404, 0.001)
    return metrics


def test_names_that_nobody_checked_do_not_grow_without_end() -> None:
    metrics = asked_for_many_names()
    names = {dict(labels)["model"] for name, labels in samples(metrics.text()) if name.endswith("seconds_count")}
    assert len(names) == MOST_UNCHECKED_NAMES + 2  # "other", and "" for those that do not exist


def test_in_flight_goes_up_and_down() -> None:
    metrics = PrometheusMetrics()
    metrics.in_flight("spam", 1)
    metrics.in_flight("spam", 1)
    metrics.in_flight("spam", -1)
    assert value(samples(metrics.text()), "in_flight", model="spam") == 1


COUNT_AND_DIE = """
from tests.unit.gateway.test_observe_metrics import PrometheusMetrics, info
metrics = PrometheusMetrics()
metrics.finished(info(answered_by="spam"), 200, 0.004)
metrics.in_flight("spam", 1)
"""
READ = """
import sys
from tests.unit.gateway.test_observe_metrics import PrometheusMetrics
metrics = PrometheusMetrics()
metrics.in_flight("spam", 1)
sys.stdout.buffer.write(metrics.text())
"""


def run_worker(source: str) -> bytes:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", source]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, cwd=root).stdout


def test_workers_count_together_and_the_dead_have_nothing_in_flight() -> None:
    with workers.shared_metrics(2):
        folder = Path(os.environ[workers.FOLDER_VARIABLE])
        run_worker(COUNT_AND_DIE)
        run_worker(COUNT_AND_DIE)
        text = run_worker(READ)
    found = samples(text)
    assert value(found, "request_seconds_count", **LABELS, status="200") == 2
    assert value(found, "in_flight", model="spam") == 1
    assert not folder.exists()
    assert workers.FOLDER_VARIABLE not in os.environ


def test_one_worker_needs_no_files() -> None:
    with workers.shared_metrics(1):
        assert workers.FOLDER_VARIABLE not in os.environ
        assert workers.all_workers() is None
