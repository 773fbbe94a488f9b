"""Rules on batches: why requests do not merge, what padding costs, what the batcher's delay costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perf.explain.evidence import Evidence, StepEvidence
from perf.explain.finding import FEW, MERGES, NOTABLE, Finding, where


def does_not_batch(e: Evidence) -> Iterator[Finding]:
    """Requests wait for a model that takes one at a time, though it could take several."""
    for s in e.steps:
        if e.concurrency < 2 or s.executions < FEW or s.average_batch is None:
            continue
        if s.average_batch / s.rows_a_request >= MERGES or (e.padding is not None and _padded_apart(e, s)):
            continue
        figures = (
            f"{s.average_batch:.2f} rows an execution at {e.concurrency} in flight, {s.queue_ms:.2f} ms in the queue"
        )
        waits = s.queue_ms >= NOTABLE * e.measured_ms
        matters = s.compute_ms >= NOTABLE * e.measured_ms
        if s.max_batch_size < 2:
            if waits:
                yield _batching(
                    s, "it takes no batches", figures, where(s, "max_batch_size: 8 and dynamic_batching { }")
                )
        elif s.delay_us is None:
            if waits:
                why = "it has no dynamic batching: each request is run by itself"
                yield _batching(s, why, figures, where(s, "dynamic_batching { }"))
        elif not waits and not matters:
            continue
        elif e.concurrency <= s.instances:
            why = f"{e.concurrency} in flight for {s.instances} instances: there is never a second one to merge with"
            change = "more requests in flight (clients, or a batch a request); a delay would only add to the latency"
            yield _batching(s, why, figures, change)
        elif not waits and s.delay_us == 0:
            why = "nothing waits: its delay is 0, and a request finds a free instance when it comes"
            delay = max(100, round(s.compute_ms * 1000 / 4, -2))
            change = where(s, f"dynamic_batching {{ max_queue_delay_microseconds: {delay:.0f} }}")
            yield _batching(s, why, figures, change + ", where throughput matters more than latency; measure both")


def shapes_differ(e: Evidence) -> Iterator[Finding]:
    """Requests wait together and still run apart, since Triton merges only those of equal shape."""
    for s in e.steps:
        if e.concurrency < 2 or s.executions < FEW or s.average_batch is None or not s.variable_dims:
            continue
        if s.average_batch / s.rows_a_request >= MERGES or s.queue_ms < NOTABLE * e.measured_ms:
            continue
        if e.padding is None and s.delay_us is not None and not is_delayed(s):
            yield _batching(
                s,
                "they wait together and are not merged, so their shapes seem to differ",
                f"inputs of variable size, {s.average_batch:.2f} rows an execution, {s.queue_ms:.2f} ms in the queue",
                f"pad what comes to {s.model} to a few sizes, in the model before it or in the client",
            )
        if e.padding is None or not _padded_apart(e, s):
            continue
        widths = e.padding.widths
        bucket = _bucket(widths)
        also = f"with dynamic_batching {{ }} in that of {s.model}, " if s.delay_us is None else ""
        yield _batching(
            s,
            "its requests have different shapes, and only equal ones are merged",
            f"{len(set(widths))} widths among {len(widths)} requests ({min(widths)} to {max(widths)}), "
            f"{s.average_batch:.2f} rows an execution",
            f'parameters {{ key: "pad_to_multiple_of" value {{ string_value: "{bucket}" }} }} in the config.pbtxt of '
            f"{e.padding.step}, {also}puts widths in buckets; "
            "on a CPU padding may cost more than a batch saves, so measure both",
        )


def padding_waste(e: Evidence) -> Iterator[Finding]:
    """Places that hold nothing are computed like all others."""
    if e.padding is None or e.padding.waste < 0.2:
        return
    at_stake = sum(s.compute_infer_ms for s in e.steps if s.variable_dims or len(e.steps) == 1) * e.padding.waste
    yield Finding(
        "padding-waste",
        e.padding.step,
        f"{e.padding.waste:.0%} of what the model computes is padding",
        f"{e.padding.tokens} tokens in {e.padding.places} places",
        f"a smaller pad_to_multiple_of in the config.pbtxt of {e.padding.step}; texts of like length in one request",
        at_stake,
    )


def delay_costs(e: Evidence) -> Iterator[Finding]:
    """The batcher's delay is most of the time in the queue."""
    for s in e.steps:
        if s.delay_us is None or s.average_batch is None or s.queue_ms < NOTABLE * e.measured_ms or not is_delayed(s):
            continue
        merges = s.average_batch / s.rows_a_request >= MERGES
        yield Finding(
            "delay-costs",
            s.model,
            f"requests wait for the batcher's delay of {s.model}" + ("" if merges else ", and nothing comes of it"),
            f"{s.queue_ms:.2f} ms in the queue, a delay of {s.delay_us / 1000:g} ms, "
            f"{s.average_batch:.2f} rows an execution at {e.concurrency} in flight",
            where(s, "dynamic_batching { }")
            + ": delay 0 merges what waits anyway"
            + (", measure both" if merges else ""),
            s.queue_ms,
        )


def is_delayed(s: StepEvidence) -> bool:
    """Whether the delay accounts for most of the time in the queue."""
    return s.delay_us is not None and s.delay_us > 0 and s.delay_us / 1000 >= 0.5 * s.queue_ms


def _batching(s: StepEvidence, why: str, figures: str, change: str) -> Finding:
    return Finding("does-not-batch", s.model, f"requests to {s.model} do not batch: {why}", figures, change, s.queue_ms)


def _padded_apart(e: Evidence, s: StepEvidence) -> bool:
    """Whether the requests come to a step in different widths."""
    return e.padding is not None and s.variable_dims and len(set(e.padding.widths)) > 1


def _bucket(widths: tuple[int, ...]) -> int:
    """A power of two that leaves three or four buckets up to the widest."""
    return 2 ** max(2, round(math.log2(max(widths) / 4))) if widths else 8
