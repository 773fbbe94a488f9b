"""Rules on where the time goes: threads, the queue, the cache, members and hops, and what is outside. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perf.explain.batching_rules import is_delayed
from perf.explain.evidence import Evidence
from perf.explain.finding import DOMINATES, FEW, NOTABLE, Finding, where


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
            where(s, change),
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
            or is_delayed(s)
        ):
            continue
        figures = f"{s.queue_ms:.2f} of {e.measured_ms:.2f} ms, at {e.concurrency} in flight for {_count(s.instances)}"
        if not s.on_gpu and s.instances >= e.cores:
            cheaper = f"a cheaper {s.model} (its precision{', or --pipeline single' if e.ensemble else ''})"
            change = f"the {e.cores} cores are taken: fewer requests in flight, {cheaper}, or more machines"
        else:
            count = min(2 * s.instances, e.cores) if not s.on_gpu else s.instances + 1
            threads = math.ceil(e.cores / count)
            with_threads = (
                f" with {s.threads_parameter} {threads}" if s.threads is not None and s.threads_parameter else ""
            )
            change = where(s, f"instance_group {{ count: {count} }}") + with_threads
        yield Finding("queue-dominates", s.model, f"requests mostly wait for {s.model}", figures, change, s.queue_ms)


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
        f"{e.outside_ms:.2f} of {e.measured_ms:.2f} ms for the network, the client, reading and writing; "
        "a client on the same machine, as this load, takes cores from the server",
        "clients nearer to the server, binary tensors in place of JSON, several rows a request, shared memory on one "
        "machine",
        e.outside_ms,
    )


def _count(instances: int) -> str:
    return "1 instance" if instances == 1 else f"{instances} instances"
