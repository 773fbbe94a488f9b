"""Prometheus metrics of the gateway, true for all of its workers.

A request is counted once, when it is over, from its record; so one that streams counts when its stream ends. Workers
share their counts through files (prometheus_client's multiprocess mode, see `gateway.observe.workers`), and whichever
worker is asked for /metrics adds them up.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from gateway.observe.workers import all_workers
from gateway.pieces import Metrics
from gateway.request_info import RequestInfo
from gateway.settings import Settings

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)

LABELS = ("route", "model", "key")

# Names that nobody has checked, of models that were asked for and refused: a label must not grow without end.
MOST_UNCHECKED_NAMES = 200
OTHER = "other"

# Why a request was refused, where its record does not say more.
_REFUSALS = {401: "key", 403: "permission", 413: "size"}


@dataclass
class _Series:
    """The metrics of one route, model and key, looked up once."""

    first_token: Any
    input_tokens: Any
    output_tokens: Any
    by_status: dict[int, Any] = field(default_factory=dict)


class PrometheusMetrics:
    """Counts requests; the latency histogram's ``_count`` by ``status`` is the number of requests."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008  (frozen)
        self._settings = settings
        registry = self._registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...], *more: str) -> Histogram:
            return Histogram(f"conch_gateway_{name}", text, (*LABELS, *more), registry=registry, buckets=buckets)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"conch_gateway_{name}", text, ("model",), registry=registry, multiprocess_mode="livesum")

        self._seconds = histogram("request_seconds", "From a request's first byte to its last", SECONDS, "status")
        self._first_token = histogram("first_token_seconds", "From a request to its first token", SECONDS)
        self._input_tokens = histogram("input_tokens", "Tokens of a request", TOKENS)
        self._output_tokens = histogram("output_tokens", "Tokens of an answer", TOKENS)
        self._refused = Counter("conch_gateway_refused", "Requests refused", (*LABELS, "reason"), registry=registry)
        self._cache = Counter("conch_gateway_cache", "Answers looked up", (*LABELS, "result"), registry=registry)
        self._in_flight = gauge("in_flight", "Requests to a model in flight, those in Triton's queue among them")
        self._queue_limit = gauge("queue_limit", "Requests to a model that may be in flight; the next is refused")
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._gauges: dict[str, Any] = {}
        self._unchecked: set[str] = set()

    def finished(self, info: RequestInfo, status: int, seconds: float) -> None:
        """Count a request that is over; a status of 499 is a client that went away."""
        record = info.record
        labels = (info.route, record.answered_by or self._unchecked_model(record.model, status), record.key_id)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._new(labels)
        latency = series.by_status.get(status)
        if latency is None:
            latency = series.by_status[status] = self._seconds.labels(*labels, str(status))
        latency.observe(seconds)
        if record.first_token_at_s is not None:
            series.first_token.observe(record.first_token_at_s - info.started_s)
        if record.input_tokens:
            series.input_tokens.observe(record.input_tokens)
        if record.output_tokens:
            series.output_tokens.observe(record.output_tokens)
        reason = record.refused or _REFUSALS.get(status)
        if reason:
            self._refused.labels(*labels, reason).inc()
        if record.cache:
            self._cache.labels(*labels, record.cache).inc()

    def in_flight(self, model: str, change: int) -> None:
        """A request to a model began (+1) or ended (-1)."""
        gauge = self._gauges.get(model)
        if gauge is None:
            gauge = self._gauges[model] = self._in_flight.labels(model)
            self._queue_limit.labels(model).set(self._settings.queue_limit_of(model))
        gauge.inc(change)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._whole())

    def families(self) -> list[Metric]:
        """Everything, for those who want figures and no text."""
        return list(self._whole().collect())

    def _whole(self) -> CollectorRegistry:
        return all_workers() or self._registry

    def _new(self, labels: tuple[str, str, str]) -> _Series:
        return _Series(
            self._first_token.labels(*labels),
            self._input_tokens.labels(*labels),
            self._output_tokens.labels(*labels),
        )

    def _unchecked_model(self, name: str, status: int) -> str:
        """What to call a model that did not answer: it may not exist, and anybody may ask for any name."""
        if not name or status == 404:
            return ""
        if name not in self._unchecked:
            if len(self._unchecked) >= MOST_UNCHECKED_NAMES or len(name) > 128:
                return OTHER
            self._unchecked.add(name)
        return name


def build(settings: Settings) -> Metrics:
    """The metrics of this process."""
    return PrometheusMetrics(settings)
