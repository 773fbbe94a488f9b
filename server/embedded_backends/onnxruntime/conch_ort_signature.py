"""The inputs and outputs of an ONNX model, and how they must agree with the configuration.

Pure: works on what a session says of its tensors. The rules are the native backend's (ValidateInputs, ValidateOutputs,
AutoCompleteConfig in https://github.com/triton-inference-server/onnxruntime_backend/blob/main/src/onnxruntime.cc), so
that what loads here loads in NVIDIA's container too, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from conch_backend_config import NUMPY_TYPES, BackendConfig, LoadFailed, TensorConfig
from conch_batching import ModelInput

# What onnxruntime calls a tensor's type -> its name in config.pbtxt. BF16 is not here: the native backend has none.
CONFIG_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}

# tritonserver's own default for --backend-config=default-max-batch-size, which it does not tell a Python backend.
DEFAULT_MAX_BATCH_SIZE = 4


class NodeArg(Protocol):
    """What onnxruntime says of a tensor; ``shape`` has names or None where a size is open."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: its type as in config.pbtxt, its whole shape with -1 for open sizes."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def describe(self) -> str:
        """What a person reads: ``x TYPE_FP32 [-1, 3]``."""
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives; ``optional`` are initializers that a request may override."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    optional: tuple[Tensor, ...] = ()

    def input(self, name: str) -> Tensor | None:
        """The input or overridable initializer of this name."""
        return next((t for t in (*self.inputs, *self.optional) if t.name == name), None)

    def output(self, name: str) -> Tensor | None:
        """The output of this name."""
        return next((t for t in self.outputs if t.name == name), None)


@dataclass(frozen=True)
class Completion:
    """What a configuration left short is to be completed with; None where it stays as it is."""

    max_batch_size: int | None
    dynamic_batching: bool
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def read_signature(
    model: str, inputs: Sequence[NodeArg], outputs: Sequence[NodeArg], optional: Sequence[NodeArg]
) -> Signature:
    """Read what a session says of its tensors. Raises: LoadFailed for a type that Triton cannot carry."""
    read = [tuple(_tensor(model, arg) for arg in args) for args in (inputs, outputs, optional)]
    return Signature(*read)


def _tensor(model: str, arg: NodeArg) -> Tensor:
    if arg.type not in CONFIG_TYPES:
        fix = None
        if arg.type.startswith(("seq", "map")):
            fix = "export so that it is a tensor (scikit-learn classifiers: options={'zipmap': False})"
        elif arg.type == "tensor(bfloat16)":
            fix = "cast it in the graph: the native onnxruntime backend has no BF16 either"
        raise LoadFailed(
            f"{model}: {arg.name} is nothing that the onnxruntime backend can take or give",
            got=f"{arg.name} {arg.type}",
            expected="one of " + ", ".join(CONFIG_TYPES),
            fix=fix,
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in arg.shape)
    return Tensor(arg.name, CONFIG_TYPES[arg.type], shape)


def complete(config: Mapping[str, Any], signature: Signature) -> Completion:
    """Complete a ModelConfig (JSON form) that names no inputs or no outputs, as the native backend does.

    Batching is possible when every tensor's first size is open; then an unset max_batch_size becomes 4, and above 1 the
    dynamic batcher is on. Raises: LoadFailed when a batch size is set and the model cannot batch.
    """
    tensors = (*signature.inputs, *signature.outputs)
    can_batch = all(t.shape[:1] == (-1,) for t in tensors)
    batch = int(config.get("max_batch_size", 0))
    if not can_batch and batch:
        fixed = [t.describe() for t in tensors if t.shape[:1] != (-1,)]
        raise LoadFailed(
            f"{config['name']}: the model does not support batching",
            got=f"max_batch_size {batch}, and in the model {'; '.join(fixed)}",
            expected="an open first dimension in every input and output",
            fix="max_batch_size: 0, or export with a dynamic batch dimension",
        )
    new_batch = DEFAULT_MAX_BATCH_SIZE if can_batch and batch == 0 else None
    batch = new_batch or batch
    scheduled = "dynamic_batching" in config or "sequence_batching" in config
    return Completion(
        max_batch_size=new_batch,
        dynamic_batching=batch > 1 and not scheduled,
        inputs=[] if config.get("input") else [_as_config(t, batch > 0) for t in signature.inputs],
        outputs=[] if config.get("output") else [_as_config(t, batch > 0) for t in signature.outputs],
    )


def _as_config(tensor: Tensor, batched: bool) -> dict[str, Any]:
    """A tensor as an entry of a ModelConfig; one without dims gets [1], reshaped to none where there is a batch."""
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.datatype, "dims": dims or [1]}
    if not dims and batched:
        entry["reshape"] = {"shape": []}
    return entry


def match(config: BackendConfig, signature: Signature) -> tuple[ModelInput, ...]:
    """Check that configuration and model agree in names, types and dims, and give what requests are checked against.

    Raises: LoadFailed, with both sides shown.
    """
    _match_count(config, signature)
    for tensor in config.inputs:
        _match_optional(config, signature, tensor)
        found = signature.input(tensor.name)
        if found is None:
            raise _not_there(config, "input", tensor.name, (*signature.inputs, *signature.optional))
        _match_tensor(config, "input", tensor, found, exact=False)
    for tensor in config.outputs:
        found = signature.output(tensor.name)
        if found is None:
            raise _not_there(config, "output", tensor.name, signature.outputs)
        # Exact, as in the native backend: clients and ensembles rely on the declared dims of outputs.
        _match_tensor(config, "output", tensor, found, exact=True)
    optional = {t.name for t in config.inputs if t.optional}
    declared = {t.name: t for t in config.inputs}
    taken = [t for t in (*signature.inputs, *signature.optional) if t.name in declared or t.name in config.controls]
    # A scalar arrives with the dims of the configuration, all 1; the runner takes them away.
    return tuple(
        ModelInput(t.name, NUMPY_TYPES[t.datatype], t.shape or declared[t.name].dims, t.name in optional) for t in taken
    )


def _match_count(config: BackendConfig, signature: Signature) -> None:
    """Every input of the graph must be fed; overridable initializers need not."""
    given = {t.name for t in config.inputs} | set(config.controls)
    missing = [t for t in signature.inputs if t.name not in given]
    if missing:
        raise LoadFailed(
            f"{config.model_name}: the model has inputs that the configuration does not name",
            got="input " + (", ".join(sorted(given)) or "none"),
            expected="; ".join(t.describe() for t in signature.inputs),
            fix="add: " + ", ".join(t.name for t in missing),
        )


def _match_optional(config: BackendConfig, signature: Signature, tensor: TensorConfig) -> None:
    if tensor.optional and config.batched:
        raise LoadFailed(
            f"{config.model_name}: optional input {tensor.name} is not supported together with batching",
            got=f"optional: true, max_batch_size: {config.max_batch_size}",
            expected="max_batch_size: 0, as in the native backend",
        )
    if tensor.optional and tensor.name in {t.name for t in signature.inputs}:
        raise LoadFailed(
            f"{config.model_name}: input {tensor.name} cannot be optional: the graph has no default for it",
            got="optional: true",
            expected="an input that is also an initializer of the graph; there are "
            + (", ".join(t.name for t in signature.optional) or "none"),
        )


def _match_tensor(config: BackendConfig, kind: str, tensor: TensorConfig, found: Tensor, *, exact: bool) -> None:
    due = tensor.shape(batched=config.batched)
    got = f"config.pbtxt {tensor.name} {tensor.datatype} {list(due)}"
    if tensor.datatype != found.datatype:
        raise LoadFailed(
            f"{config.model_name}: {kind} {tensor.name} has another type in the model",
            got=got,
            expected=f"model {found.describe()}",
        )
    if not found.shape and not config.batched:
        if any(size != 1 for size in tensor.dims):
            raise LoadFailed(
                f"{config.model_name}: {kind} {tensor.name} is a scalar in the model",
                got=got,
                expected="dims of 1 only, e.g. [1]",
            )
        return
    fits = len(due) == len(found.shape) and all(
        size == mine or (size == -1 and not exact) for size, mine in zip(found.shape, due, strict=True)
    )
    if not fits or (config.batched and found.shape[:1] != (-1,)):
        batch = (
            f" (the first of them the batch, as max_batch_size is {config.max_batch_size})" if config.batched else ""
        )
        raise LoadFailed(
            f"{config.model_name}: {kind} {tensor.name} has other dims in the model",
            got=got + batch,
            expected=f"model {found.describe()}",
            fix=_fix_dims(config, found),
        )


def _fix_dims(config: BackendConfig, found: Tensor) -> str:
    if not config.batched:
        return f"dims: {list(found.shape)}"
    if found.shape[:1] != (-1,):
        return f"max_batch_size: 0 and dims: {list(found.shape)}, or export with a dynamic batch dimension"
    return f"dims: {list(found.shape[1:])}"


def _not_there(config: BackendConfig, kind: str, name: str, there: Sequence[Tensor]) -> LoadFailed:
    return LoadFailed(
        f"{config.model_name}: the model has no {kind} {name}",
        got=f"config.pbtxt {kind} {name}",
        expected="model " + ("; ".join(t.describe() for t in there) or "none"),
    )
