"""What is known of a model under load, for the rules of `perf.explain.findings`; and how it is put together. Pure.

A step is a model that computes: a member of the ensemble, or the one model itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conch.model_config import ModelConfigMessage
from perf.explain.breakdown import OUTSIDE, Breakdown
from perf.explain.counters import Counters
from perf.explain.timeline import COMPUTE

# Backend -> the parameter that says how many threads an instance computes with; absent or 0: one for each core.
THREAD_PARAMETERS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}


@dataclass(frozen=True)
class StepEvidence:
    """One step: its settings, then what it did under the load.

    ``threads`` an instance computes with: None where nobody can tell. ``delay_us`` None: no dynamic batching. Times
    are milliseconds of the mean request. ``rows_a_request``: rows that one request brings.
    """

    model: str
    backend: str = "python"
    max_batch_size: int = 8
    delay_us: int | None = None
    variable_dims: bool = False
    instances: int = 1
    on_gpu: bool = False
    threads: int | None = None
    threads_parameter: str = ""
    cache_enabled: bool = False
    requests: int = 0
    failures: int = 0
    executions: int = 0
    average_batch: float | None = None
    rows_a_request: float = 1.0
    cache_hits: int = 0
    cache_misses: int = 0
    queue_ms: float = 0.0
    compute_input_ms: float = 0.0
    compute_infer_ms: float = 0.0
    compute_output_ms: float = 0.0

    @property
    def compute_ms(self) -> float:
        """Input, infer and output."""
        return self.compute_input_ms + self.compute_infer_ms + self.compute_output_ms


@dataclass(frozen=True)
class Padding:
    """How full the requests' rows are: ``tokens`` are real, of ``places`` computed; ``widths`` of the requests.

    ``step`` pads; ``widths`` are each request's row length, in the order of the requests.
    """

    step: str
    tokens: int
    places: int
    widths: tuple[int, ...] = ()

    @property
    def waste(self) -> float:
        """The share of computed places that held nothing."""
        return 1 - self.tokens / self.places if self.places else 0.0


@dataclass(frozen=True)
class Evidence:
    """The whole: ``steps`` in the order of the pipeline. ``failure`` is the first failed answer's reason."""

    model: str
    ensemble: bool
    steps: tuple[StepEvidence, ...]
    concurrency: int
    cores: int
    measured_ms: float
    hop_ms: float = 0.0
    outside_ms: float = 0.0
    requests: int = 0
    failures: int = 0
    failure: str = ""
    cache_enabled: bool = False
    cache_hits: int = 0
    cache_misses: int = 0
    padding: Padding | None = None


def gather(
    model: str,
    steps: Sequence[str],
    configs: Mapping[str, ModelConfigMessage],
    counted: Mapping[str, Counters],
    breakdown: Breakdown,
    *,
    concurrency: int,
    cores: int,
    failures: int = 0,
    failure: str = "",
    padding: Padding | None = None,
) -> Evidence:
    """Put settings, counts and times together. ``steps`` are the members of an ensemble, empty for a model."""
    own = counted.get(model, Counters())
    return Evidence(
        model=model,
        ensemble=bool(steps),
        steps=tuple(
            _step(configs[name], counted.get(name, Counters()), breakdown, cores) for name in steps or (model,)
        ),
        concurrency=concurrency,
        cores=cores,
        measured_ms=breakdown.measured_ms,
        hop_ms=breakdown.ms("hop"),
        outside_ms=breakdown.ms(*OUTSIDE),
        requests=breakdown.requests,
        failures=failures,
        failure=failure,
        cache_enabled=bool(steps) and configs[model].response_cache.enable,
        cache_hits=own.cache_hits if steps else 0,
        cache_misses=own.cache_misses if steps else 0,
        padding=padding,
    )


def _step(config: ModelConfigMessage, did: Counters, breakdown: Breakdown, cores: int) -> StepEvidence:
    times = {part: breakdown.ms(part, step=config.name) for part in ("queue", *COMPUTE)}
    groups = config.instance_group
    on_gpu = any(group.kind == group.KIND_GPU for group in groups)
    answered = max(did.requests - did.cache_hits, 0)
    return StepEvidence(
        model=config.name,
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        delay_us=config.dynamic_batching.max_queue_delay_microseconds if config.HasField("dynamic_batching") else None,
        variable_dims=any(-1 in tensor.dims for tensor in config.input),
        instances=sum(max(group.count, 1) for group in groups) or 1,
        on_gpu=on_gpu,
        threads=None if on_gpu else _threads(config, cores),
        threads_parameter=THREAD_PARAMETERS.get(config.backend, ""),
        cache_enabled=config.response_cache.enable,
        requests=did.requests,
        failures=did.failures,
        executions=did.executions,
        average_batch=did.average_batch,
        rows_a_request=did.rows / answered if answered and did.rows else 1.0,
        cache_hits=did.cache_hits,
        cache_misses=did.cache_misses,
        queue_ms=times["queue"],
        compute_input_ms=times["compute_input"],
        compute_infer_ms=times["compute_infer"],
        compute_output_ms=times["compute_output"],
    )


def _threads(config: ModelConfigMessage, cores: int) -> int | None:
    """Threads an instance computes with; a Python model's only where it says so."""
    for parameter in dict.fromkeys((THREAD_PARAMETERS.get(config.backend, ""), *THREAD_PARAMETERS.values())):
        if parameter and parameter in config.parameters:
            text = config.parameters[parameter].string_value
            if text.isdigit():
                return int(text) or cores
    return cores if config.backend in THREAD_PARAMETERS else None
