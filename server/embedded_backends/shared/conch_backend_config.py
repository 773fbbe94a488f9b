"""A model's configuration as a stand-in backend needs it, read from the JSON that Triton hands to `initialize`.

Shared by the stand-ins: each folder holds a link to this file. Imports nothing of Triton's or ours, so that tests need
neither. Where the native backends refuse a configuration this refuses it too: what loads here should load there.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Triton's config types that a native backend takes, and the arrays that stand for them in Python.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "TYPE_BOOL": np.dtype(np.bool_),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
    "TYPE_STRING": np.dtype(np.object_),
}

_TRUE, _FALSE = ("true", "on", "1"), ("false", "off", "0")


class LoadFailed(Exception):
    """The model cannot be served as configured: what, got, expected, fix, one part a line."""

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        parts = (("got", got), ("expected", expected), ("fix", fix))
        lines = [f"  {key + ':':<10}{value}" for key, value in parts if value is not None]
        super().__init__("\n".join([what, *lines]))


@dataclass(frozen=True)
class TensorConfig:
    """One input or output of the configuration, as the model itself sees it.

    ``dims`` leave the batch out and are those of ``reshape`` where there is one: Triton reshapes before and after us.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    def shape(self, *, batched: bool) -> tuple[int, ...]:
        """The whole shape, with a leading -1 for the batch where there is one."""
        return (-1, *self.dims) if batched else self.dims


@dataclass(frozen=True)
class Accelerator:
    """An entry of ``optimization.execution_accelerators``."""

    name: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class BackendConfig:
    """What a stand-in honours of a ModelConfig.

    ``controls`` are the names of the sequence batcher's control tensors: inputs of the model that no client sends.
    ``graph_level`` is ``optimization.graph.level``; its default, 0, is also what an absent one means.
    """

    model_name: str
    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    parameters: Mapping[str, str]
    default_model_filename: str = ""
    graph_level: int = 0
    gpu_accelerators: tuple[Accelerator, ...] = ()
    cpu_accelerators: tuple[Accelerator, ...] = ()
    controls: tuple[str, ...] = ()
    op_libraries: tuple[str, ...] = ()
    instance_count: int = 1

    @property
    def batched(self) -> bool:
        """Whether tensors carry a leading batch dimension."""
        return self.max_batch_size > 0

    def boolean(self, key: str, default: bool | None) -> bool | None:
        """The parameter as Triton reads booleans: true/on/1, false/off/0 in any case. Raises: LoadFailed."""
        text = self.parameters.get(key)
        if text is None:
            return default
        if text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        raise LoadFailed(
            f"{self.model_name}: parameter {key} is not a boolean",
            got=repr(text),
            expected="true, on, 1, false, off or 0",
        )

    def integer(self, key: str, default: int) -> int:
        """The parameter as a whole number. Raises: LoadFailed."""
        text = self.parameters.get(key)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            raise LoadFailed(
                f"{self.model_name}: parameter {key} is not a whole number", got=repr(text), expected="e.g. 2"
            ) from None


def read_config(config: Mapping[str, Any]) -> BackendConfig:
    """Read a ModelConfig in its JSON form. Raises: LoadFailed for what the stand-ins do not do."""
    name = config["name"]
    _refuse_what_is_not_there(name, config)
    optimization = config.get("optimization", {})
    accelerators = optimization.get("execution_accelerators", {})
    controls = config.get("sequence_batching", {}).get("control_input", [])
    return BackendConfig(
        model_name=name,
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_tensor(name, t) for t in config.get("input", [])),
        outputs=tuple(_tensor(name, t) for t in config.get("output", [])),
        parameters={key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()},
        default_model_filename=config.get("default_model_filename", ""),
        graph_level=int(optimization.get("graph", {}).get("level", 0)),
        gpu_accelerators=_accelerators(accelerators.get("gpu_execution_accelerator", [])),
        cpu_accelerators=_accelerators(accelerators.get("cpu_execution_accelerator", [])),
        controls=tuple(control["name"] for control in controls),
        op_libraries=tuple(config.get("model_operations", {}).get("op_library_filename", [])),
        instance_count=sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1,
    )


def _refuse_what_is_not_there(name: str, config: Mapping[str, Any]) -> None:
    """Raise LoadFailed for what only the native backends can do: answers would be wrong without it."""
    absent = {
        "batch_input": config.get("batch_input"),
        "batch_output": config.get("batch_output"),
        "allow_ragged_batch": [t["name"] for t in config.get("input", []) if t.get("allow_ragged_batch")],
        "sequence_batching.state": config.get("sequence_batching", {}).get("state"),
        "model_transaction_policy.decoupled": config.get("model_transaction_policy", {}).get("decoupled"),
    }
    for setting, value in absent.items():
        if value:
            raise LoadFailed(
                f"{name}: {setting} does not work in the embedded server",
                got=value,
                fix="leave it out, or serve the model in NVIDIA's container, whose native backend has it",
            )


def _tensor(model: str, tensor: Mapping[str, Any]) -> TensorConfig:
    datatype = tensor["data_type"]
    if datatype not in NUMPY_TYPES:
        raise LoadFailed(
            f"{model}: tensor {tensor['name']} has a type that the native backend does not take",
            got=datatype,
            expected="one of " + ", ".join(NUMPY_TYPES),
            fix="cast in the graph" if datatype == "TYPE_BF16" else None,
        )
    reshape = tensor.get("reshape")
    dims = tensor.get("dims", []) if reshape is None else reshape.get("shape", [])
    return TensorConfig(tensor["name"], datatype, tuple(int(d) for d in dims), bool(tensor.get("optional", False)))


def _accelerators(entries: Sequence[Mapping[str, Any]]) -> tuple[Accelerator, ...]:
    return tuple(Accelerator(entry["name"], dict(entry.get("parameters", {}))) for entry in entries)


def find_model_file(version_folder: Path, config: BackendConfig, default: str) -> Path:
    """The model's file in its version folder; a folder of that name holds the file ``default``. Raises: LoadFailed."""
    path = version_folder / (config.default_model_filename or default)
    if path.is_dir():
        path = path / default
    if path.is_file():
        return path
    there = sorted(p.name for p in version_folder.iterdir()) if version_folder.is_dir() else []
    raise LoadFailed(
        f"{config.model_name}: the version folder has no model file",
        got=", ".join(there) or "an empty or missing folder",
        expected=path,
        fix=f"put it there, or name it in default_model_filename (default {default})",
    )


def check_numpy(version: str = np.__version__) -> None:
    """Raise LoadFailed for numpy 2: the stub of release 2.51.0 is built against numpy 1.

    With numpy 2 every output arrives with 0 bytes, and nothing says so; a model that does not load does.
    """
    if int(version.split(".", 1)[0]) >= 2:
        raise LoadFailed(
            "this numpy does not fit Triton's Python stub: every output would arrive empty",
            got=f"numpy {version}",
            expected="numpy 1.26",
            fix="pip install 'numpy>=1.26,<2'",
        )


def asks_for_gpu(config_file: Path) -> bool:
    """Whether a config.pbtxt names KIND_GPU itself; Triton tells us only what it resolved KIND_AUTO to.

    False when there is no file to ask: Triton chose. True when it cannot be parsed here: better an error than a
    model that silently runs on the CPU.
    """
    if not config_file.is_file():
        return False
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2

        message = text_format.Parse(config_file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except Exception:
        return True
    gpu = model_config_pb2.ModelInstanceGroup.KIND_GPU
    return any(group.kind == gpu for group in message.instance_group)
