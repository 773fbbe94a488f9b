"""What could be better, and the setting to change: each rule a small function over what is known. Pure.

A rule that does not apply yields nothing. It names its evidence with figures, since what is right for one target is
wrong for another; and a gain is bounded from above by the time that the finding concerns (``at_stake_ms``), by which
findings are sorted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perf.explain.evidence import Evidence, StepEvidence

# Fewer requests than this say nothing of batches or caches.
FEW = 20
# From this average on, requests do merge.
MERGES = 1.2
# A share of the latency from which a part is worth a word.
NOTABLE = 0.1
DOMINATES = 0.4


@dataclass(frozen=True)
class Finding:
    """``rule`` is its name, ``step`` the model ("" for the whole), ``change`` the setting and where it is."""

    rule: str
    step: str
    what: str
    evidence: str
    change: str
    at_stake_ms: float = 0.0


Rule = Callable[[Evidence], Iterator[Finding]]


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """All rules' findings: failures first, then those that most time depends on."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda f: (f.rule != "failed-requests", -f.at_stake_ms)))


def failed_requests(e: Evidence) -> Iterator[Finding]:
    """Requests that fail are fast, and spoil every average."""
    if not e.failures:
        return
    step = next((s.model for s in e.steps if s.failures), "")
    total = e.requests + e.failures
    yield Finding(
        "failed-requests",
        step,
        f"{e.failures} of {total} requests failed",
        f"the first: {e.failure or 'the server gave no reason'}",
        "mend this first: send the same request with `conch infer` and see the server's log; figures leave them out",
        e.measured_ms,
    )


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
        if s.max_batch_size < 2:
            if waits:
                yield _batching(
                    s, "it takes no batches", figures, _where(s, "max_batch_size: 8 and dynamic_batching { }")
                )
        elif s.delay_us is None:
            if waits:
                why = "it has no dynamic batching: each request is run by itself"
                yield _batching(s, why, figures, _where(s, "dynamic_batching { }"))
        elif e.concurrency <= s.instances:
            why = f"{e.concurrency} in flight for {s.instances} instances: there is never a second one to merge with"
            change = "more requests in flight (clients, or a batch a request); a delay would only add to the latency"
            yield _batching(s, why, figures, change)
        elif not waits and s.delay_us == 0:
            why = "nothing waits: its delay is 0, and a request finds a free instance when it comes"
            delay = max(100, round(s.compute_ms * 1000 / 4, -2))
            change = _where(s, f"dynamic_batching {{ max_queue_delay_microseconds: {delay:.0f} }}")
            yield _batching(s, why, figures, change + ", where throughput matters more than latency; measure both")


def shapes_differ(e: Evidence) -> Iterator[Finding]:
    """Requests wait together and still run apart, since Triton merges only those of equal shape."""
    for s in e.steps:
        if e.concurrency < 2 or s.executions < FEW or s.average_batch is None or not _padded_apart(e, s):
            continue
        if s.average_batch / s.rows_a_request >= MERGES or s.queue_ms < NOTABLE * e.measured_ms:
            continue
        widths = e.padding.widths if e.padding is not None else ()
        bucket = _bucket(widths)
        also = f"with dynamic_batching {{ }} in that of {s.model}, " if s.delay_us is None else ""
        yield _batching(
            s,
            "its requests have different shapes, and only equal ones are merged",
            f"{len(set(widths))} widths among {len(widths)} requests ({min(widths)} to {max(widths)}), "
            f"{s.average_batch:.2f} rows an execution",
            f'parameters {{ key: "pad_to_multiple_of" value {{ string_value: "{bucket}" }} }} in the config.pbtxt of '
            f"{e.padding.step if e.padding is not None else 'its preprocessing'}, {also}puts widths in buckets; "
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


def oversubscribed(e: Evidence) -> Iterator[Finding]:
    """More threads than cores take the cores from each other."""
    for s in e.steps:
        if s.threads is None or s.instances * s.threads <= e.cores:
            continue
        each = math.ceil(e.cores / s.instances)
        parameter = s.threads_parameter or "intra_op_thread_count"
        change = f'parameters {{ key: "{parameter}" value {{ string_value: "{each}" }} }}'
        if s.instances * each > e.cores:
            change = f"instance_group {{ count: {e.cores} }} and {change}"
        yield Finding(
            "oversubscribed-threads",
            s.model,
            f"{s.model} computes with more threads than there are cores",
            f"{s.instances} instances of {s.threads} threads on {e.cores} cores",
            _where(s, change),
            s.compute_infer_ms,
        )


def cache_never_hits(e: Evidence) -> Iterator[Finding]:
    """A cache that is asked and never has the answer costs a digest and a copy for each request."""
    whole = (e.model, e.cache_enabled, e.cache_hits, e.cache_misses, e.requests) if e.ensemble else None
    rows = [whole] if whole else []
    rows += [(s.model, s.cache_enabled, s.cache_hits, s.cache_misses, s.requests) for s in e.steps]
    for model, enabled, hits, misses, requests in rows:
        if not enabled or hits or requests < FEW:
            continue
        if misses:
            yield Finding(
                "cache-never-hits",
                model,
                f"the response cache of {model} never has the answer",
                f"0 hits in {misses} look-ups",
                f"take response_cache out of the config.pbtxt of {model}, unless its clients repeat themselves more "
                "than these requests do",
            )
        else:
            yield Finding(
                "cache-never-hits",
                model,
                f"{model} asks for a response cache that the server does not have",
                f"0 look-ups in {requests} requests",
                "start the server with `conch serve --cache-mb 64`, or take response_cache out of the config.pbtxt of "
                f"{model}",
            )


def queue_dominates(e: Evidence) -> Iterator[Finding]:
    """Most of the time a request waits for its turn."""
    for s in e.steps:
        if (
            s.queue_ms < DOMINATES * (e.measured_ms - e.outside_ms)
            or s.queue_ms < NOTABLE * e.measured_ms
            or _delayed(s)
        ):
            continue
        figures = f"{s.queue_ms:.2f} of {e.measured_ms:.2f} ms, at {e.concurrency} in flight for {_count(s.instances)}"
        if not s.on_gpu and s.instances >= e.cores:
            change = (
                f"the {e.cores} cores are taken: fewer requests in flight, a cheaper {s.model} (precision, a single "
                "pipeline) or more machines"
            )
        else:
            count = min(2 * s.instances, e.cores) if not s.on_gpu else s.instances + 1
            threads = math.ceil(e.cores / count)
            with_threads = (
                f" with {s.threads_parameter} {threads}" if s.threads is not None and s.threads_parameter else ""
            )
            change = _where(s, f"instance_group {{ count: {count} }}") + with_threads
        yield Finding("queue-dominates", s.model, f"requests mostly wait for {s.model}", figures, change, s.queue_ms)


def delay_costs(e: Evidence) -> Iterator[Finding]:
    """The batcher's delay is most of the time in the queue."""
    for s in e.steps:
        if s.delay_us is None or s.average_batch is None or s.queue_ms < NOTABLE * e.measured_ms or not _delayed(s):
            continue
        merges = s.average_batch / s.rows_a_request >= MERGES
        yield Finding(
            "delay-costs",
            s.model,
            f"requests wait for the batcher's delay of {s.model}" + ("" if merges else ", and nothing comes of it"),
            f"{s.queue_ms:.2f} ms in the queue, a delay of {s.delay_us / 1000:g} ms, "
            f"{s.average_batch:.2f} rows an execution at {e.concurrency} in flight",
            _where(s, "dynamic_batching { }")
            + ": delay 0 merges what waits anyway"
            + (", measure both" if merges else ""),
            s.queue_ms,
        )


def bottleneck(e: Evidence) -> Iterator[Finding]:
    """One member computes most of what all compute."""
    total_ms = sum(s.compute_ms for s in e.steps)
    if len(e.steps) < 2 or total_ms < NOTABLE * e.measured_ms:
        return
    s = max(e.steps, key=lambda step: step.compute_ms)
    if s.compute_ms < 0.6 * total_ms:
        return
    if s.threads_parameter:
        change = (
            f"make {s.model} cheaper: `conch export ... --precision int8`; `conch perf tune {e.model}` for its settings"
        )
    else:
        change = f"what counts is the code of {s.model}: see what its execute() does, and take rows in bulk"
    yield Finding(
        "bottleneck",
        s.model,
        f"{s.model} is where the computing is done",
        f"{s.compute_ms:.2f} of {total_ms:.2f} ms computed, {s.compute_ms / total_ms:.0%}",
        change,
        s.compute_ms,
    )


def hops_cost_more(e: Evidence) -> Iterator[Finding]:
    """Going from member to member costs more than what they compute."""
    moved_ms = max(e.hop_ms, 0.0) + sum(s.compute_input_ms + s.compute_output_ms for s in e.steps)
    infer_ms = sum(s.compute_infer_ms for s in e.steps)
    if not e.ensemble or moved_ms <= infer_ms or moved_ms < NOTABLE * e.measured_ms:
        return
    yield Finding(
        "hops-cost-more",
        "",
        "moving tensors between the members costs more than computing",
        f"{moved_ms:.2f} ms of hops, inputs and outputs, {infer_ms:.2f} ms of computing",
        "export it as one model: `conch export ... --pipeline single` (same tensors, same answers)",
        moved_ms,
    )


def outside_the_server(e: Evidence) -> Iterator[Finding]:
    """Most of the latency is not the server's."""
    if e.outside_ms < 0.5 * e.measured_ms:
        return
    yield Finding(
        "outside-the-server",
        "",
        "more than half of the latency is spent outside of the models",
        f"{e.outside_ms:.2f} of {e.measured_ms:.2f} ms for the network, the client, reading and writing",
        "clients nearer to the server, binary tensors in place of JSON, several rows a request, shared memory on one "
        "machine",
        e.outside_ms,
    )


RULES: tuple[Rule, ...] = (
    failed_requests,
    does_not_batch,
    shapes_differ,
    padding_waste,
    oversubscribed,
    cache_never_hits,
    queue_dominates,
    delay_costs,
    bottleneck,
    hops_cost_more,
    outside_the_server,
)


def _batching(s: StepEvidence, why: str, figures: str, change: str) -> Finding:
    return Finding("does-not-batch", s.model, f"requests to {s.model} do not batch: {why}", figures, change, s.queue_ms)


def _delayed(s: StepEvidence) -> bool:
    """Whether the delay accounts for most of the time in the queue."""
    return s.delay_us is not None and s.delay_us > 0 and s.delay_us / 1000 >= 0.5 * s.queue_ms


def _padded_apart(e: Evidence, s: StepEvidence) -> bool:
    """Whether the requests come to a step in different widths."""
    return e.padding is not None and s.variable_dims and len(set(e.padding.widths)) > 1


def _bucket(widths: tuple[int, ...]) -> int:
    """A power of two that leaves three or four buckets up to the widest."""
    return 2 ** max(2, round(math.log2(max(widths) / 4))) if widths else 8


def _where(s: StepEvidence, setting: str) -> str:
    return f"{setting} in the config.pbtxt of {s.model}"


def _count(instances: int) -> str:
    return "1 instance" if instances == 1 else f"{instances} instances"
