"""What the engine does, as Triton's custom metrics: beside Triton's own on its metrics port.

Each call is a message to the server's process. So counts are kept here and handed over a few times a second, and of the
times only two a request are observed.

Source: https://github.com/triton-inference-server/python_backend#custom-metrics
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from generate_made import Usage

EVERY_S = 0.1
FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0)
PER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.4, 1.0, 2.5)

GAUGES = {
    "requests_running": "Requests that got a token, or had a part of their prompt read, in the engine's last step",
    "requests_waiting": "Requests that wait for a place among those that run, or in the cache",
    "cache_usage_ratio": "Share of the key-value cache that is in use, from 0 to 1",
}
COUNTERS = {
    "prompt_tokens_total": "Tokens of the prompts of requests that were started",
    "output_tokens_total": "Tokens generated",
    "requests_finished_total": "Requests that ended with a stop token, a stop string or at their length",
    "requests_cancelled_total": "Requests whose clients were gone before they ended",
    "requests_refused_total": "Requests refused because too many were waiting",
}
HISTOGRAMS = {
    "time_to_first_token_seconds": ("Time from a request's arrival to its first token", FIRST_TOKEN_BUCKETS_S),
    "time_per_output_token_seconds": ("Mean time between a request's tokens after the first", PER_TOKEN_BUCKETS_S),
}


class EngineMetrics:
    """The metrics `generate_*` of one model instance. Counting is for the stepping thread, but for `refused`."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Register them; where the server's metrics are off, nothing is counted."""
        self._metrics: dict[str, Any] = {}
        self._families: list[Any] = []  # a family that is gone takes its metrics with it
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._next_s = 0.0
        kinds = pb_utils.MetricFamily
        try:
            for name, text in GAUGES.items():
                self._register(name, text, kinds.GAUGE, labels=dict(labels))
            for name, text in COUNTERS.items():
                self._register(name, text, kinds.COUNTER, labels=dict(labels))
            for name, (text, buckets_s) in HISTOGRAMS.items():
                self._register(name, text, kinds.HISTOGRAM, labels=dict(labels), buckets=list(buckets_s))
        except pb_utils.TritonModelException as error:
            if "metrics not supported" not in str(error):
                raise
            self._metrics.clear()

    def count(self, name: str, more: int = 1) -> None:
        """Add to a counter; it is handed over at the next report."""
        self._counts[name] += more

    def observe(self, name: str, seconds: float) -> None:
        """One time for a histogram."""
        if name in self._metrics:
            self._metrics[name].observe(seconds)

    def report(self, usage: Usage, queued: int, *, now: bool = False) -> None:
        """Hand over what was counted, and the state, if the last report is old enough or ``now``."""
        if not self._metrics or (time.monotonic() < self._next_s and not now):
            return
        self._next_s = time.monotonic() + EVERY_S
        self._metrics["requests_running"].set(usage.running)
        self._metrics["requests_waiting"].set(usage.waiting + queued)
        self._metrics["cache_usage_ratio"].set(usage.cache)
        for name, count in self._counts.items():
            if count:
                self._metrics[name].increment(count)
                self._counts[name] -= count

    def _register(self, name: str, text: str, kind: Any, **options: Any) -> None:
        family = pb_utils.MetricFamily(name=f"generate_{name}", description=text, kind=kind)
        self._families.append(family)
        self._metrics[name] = family.Metric(**options)
