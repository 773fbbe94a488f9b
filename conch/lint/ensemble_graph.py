"""An ensemble as a graph: who writes each tensor, who reads it, and what its ends declare.

Pure: configs and ONNX headers in, ends and edges out. What is not known (a member that Triton completes when it loads
it) stays None, and nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2

from conch.errors import ConchError
from conch.lint.model import ModelFolder
from conch.lint.onnx_header import OnnxTensor
from conch.model_config import ModelConfigMessage
from conch.tensor_spec import from_config_type, from_onnx_type


@dataclass(frozen=True)
class End:
    """A tensor of one model, at one end of an edge.

    ``datatype`` is Triton's wire name, "" when it is not known; ``dims`` leave the batch dimension out, None when they
    are not known; ``batched`` says whether there is one.
    """

    model: str
    tensor: str
    datatype: str
    dims: tuple[int, ...] | None
    batched: bool
    optional: bool = False

    def agrees_in_type(self, other: End) -> bool:
        """Whether both are of one type, or one is not known."""
        return not (self.datatype and other.datatype) or self.datatype == other.datatype

    def agrees_in_shape(self, other: End) -> bool:
        """As Triton compares: sizes are equal or variable, without the batch dimension or with it."""
        if self.dims is None or other.dims is None:
            return True
        return _match(self.dims, other.dims) or _match(self._full(self.dims), other._full(other.dims))

    def _full(self, dims: tuple[int, ...]) -> tuple[int, ...]:
        return (-1, *dims) if self.batched else dims

    def describe(self, *, whole: bool = False) -> str:
        """What a person reads: ``digits_model.pixels FP32 [784]``; ``whole`` shows the batch dimension."""
        sizes = ["?"] if self.dims is None else [str(d) for d in self.dims]
        if whole and self.batched:
            sizes = ["batch", *sizes]
        return f"{self.model}.{self.tensor} {self.datatype or '?'} [{','.join(sizes)}]"


def _match(left: Sequence[int], right: Sequence[int]) -> bool:
    return len(left) == len(right) and all(a == b or -1 in (a, b) for a, b in zip(left, right, strict=True))


def edge(ensemble: str, writer: End, reader: End) -> str:
    """An edge as people write it: ``digits: pre.pixels FP32 [1,28,28] -> model.pixels FP32 [784]``."""
    whole = writer.batched != reader.batched
    return f"{ensemble}: {writer.describe(whole=whole)} -> {reader.describe(whole=whole)}"


@dataclass(frozen=True)
class Member:
    """What an ensemble must know of a model in it; ``inputs`` or ``outputs`` None: Triton learns them at load.

    ``max_batch_size`` None: not known, 0: no batch dimension.
    """

    name: str
    inputs: Mapping[str, End] | None
    outputs: Mapping[str, End] | None
    max_batch_size: int | None
    decoupled: bool = False
    stateful: bool = False


def member_of(model: ModelFolder) -> Member | None:
    """A model as a member; None when its config does not parse."""
    config = model.config
    if config is None:
        return None
    inputs, outputs = config_ends(model.name, config.input, config), config_ends(model.name, config.output, config)
    size: int | None = int(config.max_batch_size)
    if not (inputs and outputs):
        header = next((h for _, h in model.headers()), None)
        size = size or None  # completed at load
        if header is not None:
            batched = bool(size) or all(_variable_first(t) for t in (*header.inputs, *header.outputs))
            inputs = inputs or _header_ends(model.name, header.inputs, batched)
            outputs = outputs or _header_ends(model.name, header.outputs, batched)
    return Member(
        model.name,
        inputs or None,
        outputs or None,
        size,
        decoupled=config.model_transaction_policy.decoupled,
        stateful=config.HasField("sequence_batching"),
    )


def config_ends(name: str, tensors: Iterable[Any], config: ModelConfigMessage) -> dict[str, End]:
    """The ends that a config declares, by tensor name."""
    batched = config.max_batch_size > 0
    return {
        t.name: End(name, t.name, _config_type(t.data_type), tuple(t.dims), batched, getattr(t, "optional", False))
        for t in tensors
    }


def outer_ends(name: str, tensors: Iterable[Any], config: ModelConfigMessage) -> dict[str, End]:
    """An ensemble's own inputs or outputs as its members see them: reshaped, where it says so."""
    batched = config.max_batch_size > 0
    return {
        t.name: End(
            name,
            t.name,
            _config_type(t.data_type),
            tuple(t.reshape.shape if t.HasField("reshape") else t.dims),
            batched,
        )
        for t in tensors
    }


def _config_type(number: int) -> str:
    try:
        return from_config_type(model_config_pb2.DataType.Name(number)).wire
    except (ValueError, ConchError):  # TYPE_INVALID, or a number that the enum does not have
        return ""


def _variable_first(tensor: OnnxTensor) -> bool:
    return bool(tensor.dims) and not isinstance((tensor.dims or (0,))[0], int)


def _header_ends(name: str, tensors: Iterable[OnnxTensor], batched: bool) -> dict[str, End]:
    return {t.name: _header_end(name, t, batched) for t in tensors}


def _header_end(name: str, tensor: OnnxTensor, batched: bool) -> End:
    try:
        datatype = from_onnx_type(tensor.elem_type).wire
    except ConchError:
        datatype = ""
    sizes = None if tensor.dims is None else tuple(d if isinstance(d, int) and d > 0 else -1 for d in tensor.dims)
    if batched and sizes:
        sizes = sizes[1:]
    return End(name, tensor.name, datatype, sizes, batched)


@dataclass(frozen=True)
class Mention:
    """A place that writes or reads an ensemble tensor; ``end`` None when nothing is known of that place."""

    label: str
    end: End | None


@dataclass(frozen=True)
class Graph:
    """An ensemble's tensors by name: the places that write each, and those that read it, in the order of the steps."""

    written: Mapping[str, tuple[Mention, ...]]
    read: Mapping[str, tuple[Mention, ...]]

    def edges(self) -> Iterator[tuple[str, End, End]]:
        """Each tensor with its writer and one of its readers, where both are known."""
        for tensor, readers in self.read.items():
            for writer in self.written.get(tensor, ()):
                for reader in readers:
                    if writer.end is not None and reader.end is not None:
                        yield tensor, writer.end, reader.end


def graph_of(name: str, config: ModelConfigMessage, members: Mapping[str, Member]) -> Graph:
    """The graph of an ensemble. Its own inputs write, its own outputs read; ``members`` are those that are known."""
    written: dict[str, list[Mention]] = {}
    read: dict[str, list[Mention]] = {}
    for tensor, end in outer_ends(name, config.input, config).items():
        written.setdefault(tensor, []).append(Mention(f"input {tensor}", end))
    for step in config.ensemble_scheduling.step:
        member = members.get(step.model_name)
        inputs, outputs = (member.inputs or {}, member.outputs or {}) if member else ({}, {})
        for own, tensor in sorted(step.input_map.items()):
            read.setdefault(tensor, []).append(Mention(f"{step.model_name}.{own}", inputs.get(own)))
        for own, tensor in sorted(step.output_map.items()):
            written.setdefault(tensor, []).append(Mention(f"{step.model_name}.{own}", outputs.get(own)))
    for tensor, end in outer_ends(name, config.output, config).items():
        read.setdefault(tensor, []).append(Mention(f"output {tensor}", end))
    return Graph({t: tuple(m) for t, m in written.items()}, {t: tuple(m) for t, m in read.items()})


def unreachable_steps(config: ModelConfigMessage) -> list[str]:
    """The members of the steps that never get all their inputs: they wait for each other in a circle."""
    ready = {t.name for t in config.input}
    waiting = list(config.ensemble_scheduling.step)
    while True:
        runs = [s for s in waiting if set(s.input_map.values()) <= ready]
        if not runs:
            return [s.model_name for s in waiting]
        ready.update(t for s in runs for t in s.output_map.values())
        waiting = [s for s in waiting if s not in runs]
