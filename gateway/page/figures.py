"""The page's live figures: what the metrics have counted for each model, over all routes, keys and workers. Pure.

Counts only grow, so the page takes the difference of two looks, and no worker has to remember anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from gateway.observe.metrics import SECONDS

_INFINITY = "+Inf"
_BOUNDS = {**{str(float(bound)): place for place, bound in enumerate(SECONDS)}, _INFINITY: len(SECONDS)}


@dataclass
class ModelFigures:
    """Counts of one model since the gateway started.

    ``answered`` had a status below 400, ``refused`` one of 400 to 498 (499 is a client that went away), ``failed`` one
    above. ``buckets`` count the answered by their latency, one a bound of `SECONDS` and one for those above, and
    ``seconds`` is the sum of these; ``first_token_buckets`` and ``first_token_seconds`` are of all that had one.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    cache_hits: int = 0
    in_flight: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    first_token_buckets: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))


def by_model(families: Iterable[Metric]) -> dict[str, ModelFigures]:
    """The figures of every model that was asked."""
    found: dict[str, ModelFigures] = {}
    for family in families:
        for sample in family.samples:
            model = sample.labels.get("model")
            if model:
                _count(found.setdefault(model, ModelFigures()), sample.name, sample.labels, sample.value)
    for figures in found.values():
        figures.buckets = _each(figures.buckets)
        figures.first_token_buckets = _each(figures.first_token_buckets)
    return found


def _each(cumulative: list[int]) -> list[int]:
    """Prometheus counts each latency in all buckets above it, too: what is in each alone."""
    return [count - below for count, below in zip(cumulative, [0, *cumulative], strict=False)]


def _count(figures: ModelFigures, name: str, labels: dict[str, str], value: float) -> None:
    amount = int(value)
    if name == "conch_gateway_request_seconds_bucket":
        if int(labels["status"]) < 400:
            figures.buckets[_BOUNDS[labels["le"]]] += amount
    elif name == "conch_gateway_request_seconds_count":
        status = int(labels["status"])
        if status < 400:
            figures.answered += amount
        elif status >= 500:
            figures.failed += amount
        elif status != 499:
            figures.refused += amount
    elif name == "conch_gateway_request_seconds_sum":
        figures.seconds += value if int(labels["status"]) < 400 else 0.0
    elif name == "conch_gateway_first_token_seconds_sum":
        figures.first_token_seconds += value
    elif name == "conch_gateway_first_token_seconds_bucket":
        figures.first_token_buckets[_BOUNDS[labels["le"]]] += amount
    elif name == "conch_gateway_output_tokens_sum":
        figures.output_tokens += amount
    elif name == "conch_gateway_cache_total":
        figures.cache_hits += amount if labels["result"] != "miss" else 0
    elif name == "conch_gateway_in_flight":
        figures.in_flight += max(0, amount)
