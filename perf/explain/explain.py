"""Put a load to a served model, and explain where its time went: read `explain` top to bottom."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clients import Client
from conch.errors import ConchError, ModelNotFound, ServerError
from conch.model_config import ModelConfig, ModelConfigMessage, signature_of
from perf import points
from perf.explain import asked, breakdown, counters, traced_load, tracing
from perf.explain.breakdown import OUTSIDE, Breakdown
from perf.explain.counters import Counters
from perf.explain.evidence import Evidence, gather
from perf.explain.finding import Finding
from perf.explain.findings import findings
from perf.explain.timeline import Timeline, timelines, with_client
from perf.explain.trace_file import Trace
from perf.explain.traced_load import Sent
from perf.points import Machine
from server import http_api

# So many traces say enough, and more of them take memory of the server.
TRACES = 2000
# Fewer matched traces than this say less than the counters do.
FEWEST_TRACES = 10


@dataclass(frozen=True)
class LoadFor:
    """What to explain under: ``concurrency`` requests in flight for ``seconds``, after ``warmup_s`` of the same."""

    concurrency: int = 8
    seconds: float = 5.0
    warmup_s: float = 1.0


@dataclass(frozen=True)
class Explanation:
    """Everything found, ``at`` in UTC, from ``machine``.

    Latencies are the client's; ``percentiles_ms`` has p50, p90 and p99 of them.
    ``server_ms`` is the time within the server twice, by its own ``statistics`` and by the ``parts``: a check on both.
    """

    model: str
    at: str
    machine: Machine
    steps: tuple[str, ...]
    protocol: str
    concurrency: int
    seconds: float
    requests: int
    failures: int
    requests_per_second: float
    percentiles_ms: Mapping[str, float]
    server_ms: Mapping[str, float]
    breakdown: Breakdown
    evidence: Evidence
    findings: tuple[Finding, ...]
    batch_sizes: Mapping[str, Mapping[int, int]]
    notes: tuple[str, ...]


def explain(
    name: str,
    url: str,
    load: LoadFor,
    *,
    load_url: str = "",
    inputs: Path | None = None,
    repository: Path | None = None,
    headers: Mapping[str, str] | None = None,
) -> Explanation:
    """Explain a model that a server at an http:// address serves.

    ``load_url`` is where the requests go, http:// or grpc://; by default to the same address.
    ``inputs`` is a file or a folder of them, as `conch perf run` takes it; ``repository`` may have golden ones.
    Raises: ConchError, among them when every request fails.
    """
    heads = headers or {}
    target = load_url or url
    configs = _configs(url, name, heads)
    steps = step_names(configs, name)
    signature = signature_of(configs[name])
    choice = asked.choose(name, signature, inputs, repository)
    notes = list(choice.notes)

    messages = [traced_load.render(target, name, asked.tensors(signature, r), heads) for r in choice.requests]
    with Client(url, headers=dict(heads)) as client:
        fill = asked.padding(client, name, steps, choice.requests)
    warm = traced_load.drive(target, messages, load.concurrency, load.warmup_s, heads)
    _refuse_if_all_failed(name, warm)

    path, why_not = tracing.trace_path(url, heads)
    one_in = max(1, math.ceil(len(warm) / load.warmup_s * load.seconds / TRACES))
    before = _counters(url, heads)
    if path is None:
        sent = traced_load.drive(target, messages, load.concurrency, load.seconds, heads)
        notes.append(f"no traces of this server: {why_not}; parts are from its statistics")
    else:
        with tracing.traced(url, name, heads, one_in):
            sent = traced_load.drive(target, messages, load.concurrency, load.seconds, heads)
    counted = counters.between(before, _counters(url, heads))

    good = [one for one in sent if not one.failure]
    _refuse_if_all_failed(name, sent)
    measured_ms = statistics.fmean(one.ms for one in good)
    lines = matched(tracing.traces_of(path, frozenset(s.request_id for s in good)), good) if path else ()
    if len(lines) >= FEWEST_TRACES:
        where = breakdown.from_timelines(lines, measured_ms, len(good))
    else:
        if path is not None:
            notes.append(f"{len(lines)} whole traces are too few: parts are from the statistics")
        where = breakdown.from_counters(name, steps, counted, measured_ms, len(good))
    notes += [
        f"{m} was asked by others too: its figures hold theirs"
        for m in _shared([name, *_steps(configs, name)], counted, len(good))
    ]
    within = {"statistics": counted[name].ms_a_request, "parts": where.sum_ms - where.ms(*OUTSIDE)}
    if abs(within["parts"] - within["statistics"]) > max(0.1 * within["statistics"], 0.25):
        notes.append(
            f"{within['statistics']:.2f} ms in the server by its statistics, {within['parts']:.2f} by the parts"
        )
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        notes.append("threads are held to this machine's cores: look at the server's, if it is another one")
    failed = [one for one in sent if one.failure]
    evidence = gather(
        name,
        steps,
        configs,
        counted,
        where,
        concurrency=load.concurrency,
        cores=len(os.sched_getaffinity(0)),
        failures=len(failed),
        failure=failed[0].failure if failed else "",
        padding=fill,
    )
    span_s = (max(s.done_ns for s in sent) - min(s.sent_ns for s in sent)) / 1e9
    return Explanation(
        model=name,
        at=points.now(),
        machine=points.this_machine(str(http_api.ask(url, "/v2", heads).get("version", ""))),
        steps=steps,
        protocol=target.partition("://")[0],
        concurrency=load.concurrency,
        seconds=load.seconds,
        requests=len(good),
        failures=len(failed),
        requests_per_second=len(good) / span_s,
        percentiles_ms=_percentiles([one.ms for one in good]),
        server_ms=within,
        breakdown=where,
        evidence=evidence,
        findings=findings(evidence),
        batch_sizes={m: counted[m].batch_sizes for m in steps or (name,) if m in counted},
        notes=tuple(notes),
    )


def matched(traces: Sequence[Trace], sent: Sequence[Sent]) -> tuple[Timeline, ...]:
    """The timelines of the requests that the client knows, with its own stamps at both ends where the clocks agree."""
    by_id = {one.request_id: one for one in sent}
    pairs = [(line, by_id[line.request_id]) for line in timelines(traces) if line.request_id in by_id]
    joined = [with_client(line, one.sent_ns, one.done_ns) for line, one in pairs]
    whole = tuple(line for line in joined if line is not None)
    return whole if 2 * len(whole) >= len(pairs) else tuple(line for line, _ in pairs)


def step_names(configs: Mapping[str, ModelConfigMessage], name: str) -> tuple[str, ...]:
    """The models that compute for an ensemble, in order, those of ensembles within it too; empty for a model."""
    return tuple(dict.fromkeys(_steps(configs, name)))


def _steps(configs: Mapping[str, ModelConfigMessage], name: str) -> list[str]:
    """As `step_names`, a model as often as a request asks it."""
    steps = configs[name].ensemble_scheduling.step
    return [model for step in steps for model in _steps(configs, step.model_name) or [step.model_name]]


def _configs(url: str, name: str, headers: Mapping[str, str]) -> dict[str, ModelConfigMessage]:
    """The configs of a model and all its members, as the server completed them. Raises: ServerError."""
    from google.protobuf import json_format

    found: dict[str, ModelConfigMessage] = {}
    waiting = [name]
    while waiting:
        model = waiting.pop()
        if model in found:
            continue
        try:
            document = http_api.ask(url, f"/v2/models/{model}/config", headers)
        except ServerError as error:
            if "unknown model" not in str(error.got):
                raise
            fix = f"see what it serves: conch status --url {url}"
            raise ModelNotFound(f"the server has no model {model}", where=url, fix=fix) from error
        found[model] = json_format.ParseDict(document, ModelConfig(), ignore_unknown_fields=True)
        waiting += [step.model_name for step in found[model].ensemble_scheduling.step]
    if found[name].model_transaction_policy.decoupled:
        raise ConchError("a decoupled model streams its answers: its time is no single latency", where=name)
    return found


def _counters(url: str, headers: Mapping[str, str]) -> dict[tuple[str, str], Counters]:
    return counters.parse(http_api.ask(url, "/v2/models/stats", headers).get("model_stats", []))


def _refuse_if_all_failed(name: str, sent: Sequence[Sent]) -> None:
    if not sent or all(one.failure for one in sent):
        raise ServerError(
            "no request was answered: there is nothing to explain",
            where=name,
            got=sent[0].failure if sent else "no answer in the time given",
            fix="give requests that the model takes: --inputs FILE; or more --seconds",
        )


def _shared(asked_for: Sequence[str], counted: Mapping[str, Counters], requests: int) -> list[str]:
    """The models that answered clearly more than we asked; a model is listed as often as a request asks it."""
    often = Counter(asked_for)
    return [m for m, times in often.items() if m in counted and counted[m].requests > 1.05 * times * requests + 5]


def _percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    import numpy as np

    p50, p90, p99 = np.percentile(latencies_ms, [50, 90, 99])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}
