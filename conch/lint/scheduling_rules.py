"""Rules R19 to R25: batches, queues, timeouts, instances and threads.

What Triton refuses here was tried on tritonserver 2.51, or stands in its sources:
https://github.com/triton-inference-server/core/blob/main/src/model_config_utils.cc
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from conch.lint.context import Context
from conch.lint.finding import EditConfig, Fault, Severity
from conch.lint.model import ModelFolder
from conch.lint.rules import rule
from conch.model_config import ModelConfigMessage

# Backends whose speed does not depend on meeting one size; the batch sizes of a custom backend are its own affair.
_ANY_SIZE_IS_FINE = ("onnxruntime", "openvino", "python", "pytorch", "tensorflow")

# The parameter that says how many threads one instance computes with; without it, each takes one a core.
_THREADS_PARAMETER = {
    "onnxruntime": "intra_op_thread_count",
    "pytorch": "INTRA_OP_THREAD_COUNT",
    "tensorflow": "TF_NUM_INTRA_THREADS",
}
# On a CPU, these get two instances where the config names no count (SetDefaultInstanceCount).
_TWO_INSTANCES_BY_DEFAULT = ("onnxruntime", "tensorflow")

_NEEDS_A_GPU = ("tensorrt", "tensorrtllm")

# Nobody waits less than this for an answer: a smaller number was meant in another unit.
_SHORTEST_TIMEOUT_MICROSECONDS = 1000


def _completed_by_triton(model: ModelFolder, config: ModelConfigMessage) -> bool:
    """Whether max_batch_size is not decided yet: without inputs, the backend completes the config from the file."""
    return config.max_batch_size == 0 and not config.input and not model.is_ensemble


@rule("R19", "error", "a preferred batch size that cannot help", fixable=True)
def preferred_sizes(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton refuses a preferred size over max_batch_size. Elsewhere than in TensorRT, preferred sizes only delay.

    Batches grow to what waits, up to max_batch_size, without being told. Only a TensorRT engine with a profile for a
    certain size runs faster at it. Take the sizes out.

    In the Python backend without a delay they hold nothing back, and say how many requests go to a process in one trip.
    """
    config = model.config
    assert config is not None
    for place, sizes in _preferred(config):
        pointless = place.startswith("dynamic") and model.backend in _ANY_SIZE_IS_FINE and not _runs_tensorrt(config)
        pointless = pointless and not _limits_a_trip(model, config)
        remove = EditConfig(f"takes {place} out", _without_preferred)
        over = [n for n in sizes if n > config.max_batch_size or n < 1]
        if over and not _completed_by_triton(model, config):
            said = ", ".join(map(str, over))
            yield Fault(
                "a preferred batch size is out of range: Triton does not load the model",
                got=f"{place}: {list(sizes)}, max_batch_size: {config.max_batch_size}",
                expected=f"sizes from 1 to {config.max_batch_size}" if config.max_batch_size else "none",
                fix=f"take {said} out, or raise max_batch_size",
                place=place,
                mend=remove if pointless else EditConfig(f"takes {said} out of {place}", _within_range),
            )
        elif sizes and pointless:
            yield Fault(
                "preferred batch sizes hold requests back, and are only worth it for TensorRT profiles",
                got=f"{list(sizes)} with backend {model.backend}",
                expected="no preferred_batch_size",
                fix=f"take the line out: batches form up to {config.max_batch_size} by themselves",
                place=place,
                severity="warning",
                mend=remove,
            )


def _limits_a_trip(model: ModelFolder, config: ModelConfigMessage) -> bool:
    """Whether preferred sizes bound what goes to a Python process at a time: Triton waits for no size without a delay.

    Source: https://github.com/triton-inference-server/core/blob/main/src/dynamic_batch_scheduler.cc (GetDynamicBatch)
    """
    return model.backend == "python" and config.dynamic_batching.max_queue_delay_microseconds == 0


def _preferred(config: ModelConfigMessage) -> Iterator[tuple[str, tuple[int, ...]]]:
    if config.HasField("dynamic_batching"):
        yield "dynamic_batching.preferred_batch_size", tuple(config.dynamic_batching.preferred_batch_size)
    if config.HasField("sequence_batching") and config.sequence_batching.HasField("oldest"):
        oldest = config.sequence_batching.oldest
        yield "sequence_batching.oldest.preferred_batch_size", tuple(oldest.preferred_batch_size)


def _within_range(config: ModelConfigMessage) -> None:
    for batcher in _batchers(config):
        kept = [n for n in batcher.preferred_batch_size if 1 <= n <= config.max_batch_size]
        del batcher.preferred_batch_size[:]
        batcher.preferred_batch_size.extend(kept)


def _without_preferred(config: ModelConfigMessage) -> None:
    del config.dynamic_batching.preferred_batch_size[:]


def _batchers(config: ModelConfigMessage) -> Iterator[Any]:
    if config.HasField("dynamic_batching"):
        yield config.dynamic_batching
    if config.HasField("sequence_batching") and config.sequence_batching.HasField("oldest"):
        yield config.sequence_batching.oldest


def _runs_tensorrt(config: ModelConfigMessage) -> bool:
    """Whether another backend hands the model to TensorRT, which builds profiles for it."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return any(a.name == "tensorrt" for a in accelerators)


@rule("R20", "warning", "dynamic batching of single requests")
def batches_at_all(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """With max_batch_size 0 or 1 there is nothing to merge: a queue delay then only costs time.

    Raise max_batch_size when the model takes batches, or take dynamic_batching out. It may stay for its queue
    policies and priorities, which Triton has nowhere else.
    """
    config = model.config
    assert config is not None
    if not config.HasField("dynamic_batching") or config.max_batch_size > 1 or _completed_by_triton(model, config):
        return
    batching = config.dynamic_batching
    for_its_queue = batching.HasField("default_queue_policy") or batching.priority_levels > 0
    yield Fault(
        "dynamic batching cannot merge requests",
        got=f"dynamic_batching with max_batch_size: {config.max_batch_size}",
        expected="max_batch_size over 1, or no dynamic_batching",
        fix="raise max_batch_size if the model takes batches, or take dynamic_batching out",
        place="dynamic_batching",
        severity="note" if for_its_queue else None,
    )


@rule("R21", "note", "only requests of equal shape are merged")
def equal_shapes(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """The dynamic batcher merges requests whose inputs have the same shape; with variable dims, few do.

    Pad to a few lengths before the model (`pad_to_multiple_of` of a tokenizer), let the input be ragged
    (`allow_ragged_batch`, if the model can take that), or know that each length is a batch of its own.
    """
    config = model.config
    assert config is not None
    if not config.HasField("dynamic_batching") or config.max_batch_size < 2:
        return
    variable = [
        tensor
        for tensor in config.input
        if -1 in tensor.dims and not (tensor.allow_ragged_batch or tensor.is_shape_tensor)
    ]
    for tensor in variable:
        if not _padded_before(model.name, tensor.name, context):
            yield Fault(
                "requests merge only when this input has the same shape in all of them",
                got=f"dims: {list(tensor.dims)} with dynamic_batching",
                expected="few lengths (padding to buckets), or allow_ragged_batch: true",
                fix="pad to a multiple before the model, or allow ragged batches if it can take them",
                place=f"input[{tensor.name}].dims",
            )


def _padded_before(name: str, tensor: str, context: Context) -> bool:
    """Whether every ensemble that feeds the tensor does so from a member that pads to a multiple."""
    feeders = [_pads(*feeder, context) for feeder in _feeders(name, tensor, context)]
    return bool(feeders) and all(feeders)


def _feeders(name: str, tensor: str, context: Context) -> Iterator[tuple[ModelConfigMessage, str]]:
    """The ensembles in which the model's tensor is read, and the name it has there."""
    for ensemble in context.used_by.get(name, ()):
        for step in ensemble.ensemble_scheduling.step:
            if step.model_name == name and tensor in step.input_map:
                yield ensemble, step.input_map[tensor]


def _pads(ensemble: ModelConfigMessage, tensor: str, context: Context) -> bool:
    for step in ensemble.ensemble_scheduling.step:
        if tensor in step.output_map.values():
            writer = context.models.get(step.model_name)
            multiple = _parameter(writer.config, "pad_to_multiple_of") if writer and writer.config else ""
            return multiple.isdecimal() and int(multiple) > 1
    return False


@rule("R22", "warning", "a queue delay over the latency budget")
def delay_within_budget(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A request may wait this long for others before it is run at all.

    Asked only when a latency budget is given. Start with no delay, and measure what one brings.
    """
    config = model.config
    assert config is not None
    if context.latency_budget_ms is None:
        return
    sequence = config.sequence_batching
    delays = (
        ("dynamic_batching", config.dynamic_batching.max_queue_delay_microseconds),
        ("sequence_batching.direct", sequence.direct.max_queue_delay_microseconds),
        ("sequence_batching.oldest", sequence.oldest.max_queue_delay_microseconds),
    )
    for place, delay in delays:
        if delay / 1000 > context.latency_budget_ms:
            yield Fault(
                "requests may wait in the queue for longer than the whole latency budget",
                got=f"max_queue_delay_microseconds: {delay} ({delay / 1000:g} ms)",
                expected=f"well under {context.latency_budget_ms:g} ms",
                fix="start with 0, and raise it only as far as measurements ask for",
                place=f"{place}.max_queue_delay_microseconds",
            )


@rule("R23", "warning", "a timeout that looks like milliseconds")
def timeout_unit(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """default_timeout_microseconds under 1000 gives a request less than a millisecond in the queue.

    Under any load that rejects or delays nearly all of them. Multiply by 1000 if milliseconds were meant.
    """
    config = model.config
    assert config is not None
    batching = config.dynamic_batching
    policies = [("default_queue_policy", batching.default_queue_policy)]
    policies += [
        (f"priority_queue_policy[{key}]", batching.priority_queue_policy[key])
        for key in sorted(batching.priority_queue_policy)
    ]
    for place, policy in policies:
        timeout = policy.default_timeout_microseconds
        if 0 < timeout < _SHORTEST_TIMEOUT_MICROSECONDS:
            yield Fault(
                "the timeout is less than a millisecond",
                got=f"default_timeout_microseconds: {timeout}",
                expected="microseconds",
                fix=f"write {timeout * 1000} if {timeout} ms is meant",
                place=f"dynamic_batching.{place}.default_timeout_microseconds",
            )


@rule("R24", "warning", "more threads than CPUs", fixable=True)
def threads_fit(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """ONNX Runtime and PyTorch take one thread a core for each instance, unless told how many.

    Several instances then fight for the same cores: on two cores, two sessions of one thread each are twice as fast as
    two sessions of two. Set the threads of an instance to the CPUs divided by the instances. Give the target's CPUs
    with --cpus; without, those of this machine are taken, and the finding is a note.
    """
    config = model.config
    assert config is not None
    parameter = _THREADS_PARAMETER.get(model.backend)
    instances = cpu_instances(model, context)
    if parameter is None or instances < 1:
        return
    cpus = context.cpus or os.cpu_count() or 1
    threads = _number(_parameter(config, parameter))
    whose = f"{cpus} CPUs" if context.cpus else f"the {cpus} CPUs of this machine (give the target's with --cpus)"
    said: Severity | None = None if context.cpus else "note"
    due = max(1, cpus // instances)
    # Whose share is cut when there are several groups, and more instances than CPUs, is not ours to say.
    mendable = context.cpus and (instances <= cpus or len(config.instance_group) < 2)
    edit = _set_threads(parameter, due, cpus if instances > cpus else None)
    mend = EditConfig(f"sets {parameter} to {due}", edit) if mendable else None
    if threads is None:
        if instances > 1:
            yield Fault(
                "each CPU instance takes a thread a core: together they fight for the cores",
                got=f"{instances} instances, {parameter} not set",
                expected=f"{parameter}: {due} with {whose}",
                fix=f'add parameters {{ key: "{parameter}" value {{ string_value: "{due}" }} }}',
                place=f"parameters[{parameter}]",
                severity="note",
                mend=mend,
            )
    elif instances * threads > cpus:
        yield Fault(
            "the instances have more threads than there are CPUs",
            got=f"{instances} instances times {threads} threads = {instances * threads}",
            expected=f"at most {whose}",
            fix=f"set {parameter} to {due}" + (f", and the instances to {cpus}" if instances > cpus else ""),
            place=f"parameters[{parameter}]",
            severity=said,
            mend=mend,
        )


def cpu_instances(model: ModelFolder, context: Context) -> int:
    """How many instances surely run on the CPU; KIND_AUTO ones count where the target is known to have no GPU."""
    config = model.config
    assert config is not None
    default = 2 if model.backend in _TWO_INSTANCES_BY_DEFAULT else 1
    if not config.instance_group:
        return default if context.gpu is False else 0
    on_cpu = [g for g in config.instance_group if _on_cpu(g, context)]
    return sum(g.count if g.count > 0 else default for g in on_cpu)


def _on_cpu(group: Any, context: Context) -> bool:
    return bool(group.kind == group.KIND_CPU or (group.kind == group.KIND_AUTO and context.gpu is False))


def _set_threads(parameter: str, threads: int, instances: int | None) -> Callable[[ModelConfigMessage], None]:
    """An edit that sets the threads, and the instances too where a number is given."""

    def edit(config: ModelConfigMessage) -> None:
        config.parameters[parameter].string_value = str(threads)
        if instances is not None:
            group = config.instance_group[0] if config.instance_group else config.instance_group.add()
            group.count = instances

    return edit


def _parameter(config: ModelConfigMessage, key: str) -> str:
    return str(config.parameters[key].string_value) if key in config.parameters else ""


def _number(text: str) -> int | None:
    """A count above 0; 0 stands for "as many as there are cores", as does what is no number."""
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else None


@rule("R25", "error", "instances on a GPU that is not there", fixable=True)
def gpu_is_there(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton does not load KIND_GPU instances where there is no GPU, nor KIND_AUTO ones that name GPUs.

    Asked only when the target is said to have none. KIND_AUTO without `gpus` runs on every GPU where there are
    some, and on the CPU elsewhere, so that the same repository serves on both.
    """
    config = model.config
    assert config is not None
    if context.gpu is not False or model.is_ensemble:
        return
    if model.backend in _NEEDS_A_GPU:
        yield Fault(
            f"the {model.backend} backend needs a GPU, and the target has none",
            got=f"backend {model.backend}",
            expected="a backend that runs on a CPU",
            fix="export the model for onnxruntime, or serve it on a machine with a GPU",
            place="backend",
        )
        return
    for index, group in enumerate(config.instance_group):
        if group.kind == group.KIND_GPU or (group.kind == group.KIND_AUTO and group.gpus):
            kind = "KIND_GPU" if group.kind == group.KIND_GPU else f"KIND_AUTO with gpus {list(group.gpus)}"
            yield Fault(
                "the target has no GPU: Triton does not load the model",
                got=kind,
                expected="KIND_AUTO without gpus, or KIND_CPU",
                fix="write kind: KIND_AUTO and leave gpus out: it takes GPUs where there are some",
                place=f"instance_group[{group.name or index}].kind",
                mend=EditConfig("lets the instances run where they can (KIND_AUTO)", _anywhere),
            )


def _anywhere(config: ModelConfigMessage) -> None:
    for group in config.instance_group:
        if group.kind in (group.KIND_GPU, group.KIND_AUTO):
            group.kind = group.KIND_AUTO
            del group.gpus[:]
