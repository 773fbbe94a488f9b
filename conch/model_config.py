"""A model's signature and settings, as Triton's ModelConfig message and as the text of config.pbtxt.

Text is parsed and written by protobuf against Triton's own schema, never matched. The same message always gives the
same text: fields in a fixed order that a person would choose, map entries sorted.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from conch.errors import ConfigError
from conch.tensor_spec import ModelSignature, TensorSpec, data_type, from_config_type

# The generated classes carry no type information.
ModelConfig = model_config_pb2.ModelConfig
ModelConfigMessage = Any

CONFIG_FILE = "config.pbtxt"

# What a reader asks first comes first; fields not named here follow in the schema's order.
_ORDER = (
    "name",
    "backend",
    "platform",
    "default_model_filename",
    "max_batch_size",
    "input",
    "output",
    "ensemble_scheduling",
    "dynamic_batching",
    "sequence_batching",
    "instance_group",
    "model_transaction_policy",
    "response_cache",
    "version_policy",
    "optimization",
    "parameters",
)


@dataclass(frozen=True)
class InstanceGroup:
    """How many copies of the model run, and where: KIND_CPU, KIND_GPU or KIND_AUTO."""

    count: int = 1
    kind: str = "KIND_CPU"
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class DynamicBatching:
    """Triton's dynamic batcher. With a delay of 0 it takes what waits, and waits for nothing.

    ``max_queue_size`` is how many requests may wait; the next is refused at once. 0 refuses none. It is for two
    instances or more (release 24.10): a batcher with a limit prepares no batch ahead, and with one instance it may miss
    that this is free again, and sleep for up to 500 ms. It works without batches, too.
    """

    max_queue_delay_microseconds: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_size: int = 0


@dataclass(frozen=True)
class ModelSettings:
    """How a model is served, beside its signature.

    ``parameters`` are the backend's own, as strings. ``label_files`` maps an output's name to its label file beside
    config.pbtxt. ``graph_level`` is ONNX Runtime's when it loads the graph: None for all its optimizations, 1 for those
    that suit every machine, -1 for the basic ones. ``versions`` None keeps Triton's default (the latest); otherwise
    just these are served.
    """

    backend: str
    default_model_filename: str = ""
    instance_groups: tuple[InstanceGroup, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    decoupled: bool = False
    response_cache: bool = False
    graph_level: int | None = None
    versions: tuple[int, ...] | None = None
    label_files: Mapping[str, str] = field(default_factory=dict)


def build_config(name: str, signature: ModelSignature, settings: ModelSettings) -> ModelConfigMessage:
    """The ModelConfig message of a model. Raises: ConfigError when settings exclude each other."""
    batching = settings.dynamic_batching
    if batching is not None and signature.max_batch_size < 2 and not batching.max_queue_size:
        raise ConfigError(
            f"{name}: dynamic batching needs batches of at least 2",
            where="max_batch_size",
            got=signature.max_batch_size,
            fix="raise max_batch_size, or leave dynamic batching off",
        )
    config = ModelConfig(name=name, max_batch_size=signature.max_batch_size)
    config.backend = settings.backend
    config.default_model_filename = settings.default_model_filename
    add_tensors(config, signature)
    for output in config.output:
        output.label_filename = settings.label_files.get(output.name, "")
    for group in settings.instance_groups:
        config.instance_group.add(count=group.count, kind=group.kind, gpus=group.gpus)
    if batching is not None:
        config.dynamic_batching.SetInParent()
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
        config.dynamic_batching.preferred_batch_size.extend(batching.preferred_batch_sizes)
        if batching.max_queue_size:
            config.dynamic_batching.default_queue_policy.max_queue_size = batching.max_queue_size
    if settings.decoupled:
        config.model_transaction_policy.decoupled = True
    if settings.response_cache:
        config.response_cache.enable = True
    if settings.graph_level is not None:
        config.optimization.graph.level = settings.graph_level
    if settings.versions is not None:
        config.version_policy.specific.versions.extend(settings.versions)
    for key, value in settings.parameters.items():
        config.parameters[key].string_value = value
    return config


def add_tensors(config: ModelConfigMessage, signature: ModelSignature) -> None:
    """Write the signature's inputs and outputs into a message."""
    for spec in signature.inputs:
        config.input.add(
            name=spec.name, data_type=data_type(spec.datatype).config, dims=spec.dims, optional=spec.optional
        )
    for spec in signature.outputs:
        config.output.add(name=spec.name, data_type=data_type(spec.datatype).config, dims=spec.dims)


def signature_of(config: ModelConfigMessage) -> ModelSignature:
    """The signature that a ModelConfig message declares."""
    return ModelSignature(
        inputs=tuple(_spec(tensor, optional=tensor.optional) for tensor in config.input),
        outputs=tuple(_spec(tensor, optional=False) for tensor in config.output),
        max_batch_size=config.max_batch_size,
    )


def _spec(tensor: Any, *, optional: bool) -> TensorSpec:
    name = model_config_pb2.DataType.Name(tensor.data_type)
    return TensorSpec(tensor.name, from_config_type(name).wire, tuple(tensor.dims), optional)


def selected_versions(config: ModelConfigMessage, versions: Sequence[int]) -> tuple[int, ...]:
    """Those of a model's versions that its version_policy lets Triton load, lowest first.

    Without a policy that is the highest. A policy that is there and says nothing means all of them.
    Source: https://github.com/triton-inference-server/core/blob/main/src/model_repository_manager/model_lifecycle.cc
    """
    policy = config.version_policy
    chosen = policy.WhichOneof("policy_choice")
    there = sorted(versions)
    if chosen == "specific":
        return tuple(v for v in there if v in set(policy.specific.versions))
    if chosen == "all" or (chosen is None and config.HasField("version_policy")):
        return tuple(there)
    count = policy.latest.num_versions if chosen == "latest" else 1
    return tuple(there[-count:]) if count else ()


def render(config: ModelConfigMessage) -> str:
    """The text of config.pbtxt: deterministic, readable, with ``max_batch_size: 0`` written out."""
    present = {descriptor.name for descriptor, _ in config.ListFields()}
    rest = [f.name for f in config.DESCRIPTOR.fields if f.name in present and f.name not in _ORDER]
    blocks = []
    for name in (*_ORDER, *rest):
        if name == "max_batch_size":
            # Protobuf's text leaves zeros out; without the line, Triton's auto-complete may choose a size.
            blocks.append(f"max_batch_size: {config.max_batch_size}\n")
        elif name in present:
            blocks.append(_render_field(config, name))
    return "".join(blocks)


def _render_field(config: ModelConfigMessage, name: str) -> str:
    alone = ModelConfig()
    alone.MergeFrom(config)
    for other in config.DESCRIPTOR.fields:
        if other.name != name:
            alone.ClearField(other.name)
    return str(text_format.MessageToString(alone, use_short_repeated_primitives=True))


def parse(text: str, where: object = CONFIG_FILE) -> ModelConfigMessage:
    """The message that a config.pbtxt's text stands for. Raises: ConfigError, with line and column."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(
            "config.pbtxt does not parse",
            where=where,
            got=error,
            expected="protobuf text of Triton's ModelConfig",
            fix="mend the line named above; fields are listed in Triton's model_config.proto",
        ) from error


def read_config(path: Path) -> ModelConfigMessage:
    """Parse a config.pbtxt. Raises: ConfigError when it is missing, unreadable or wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.pbtxt cannot be read", where=path, got=error) from error
    return parse(text, path)
