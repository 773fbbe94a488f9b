"""The part of Triton's `triton_python_backend_utils` that our models use, without Triton.

Faithful where a model could tell the difference: strings arrive as ``bytes``, a missing tensor is None, ``TritonError``
is a value and no exception, outputs that were not requested are dropped. Stricter than Triton where that finds bugs:
outputs must have the declared names, types and shapes.

`load` runs a version folder's model.py as Triton would, and leaves ``sys.modules`` and ``sys.path`` as they were.

Source: https://github.com/triton-inference-server/python_backend
(README.md, src/resources/triton_python_backend_utils.py)
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TRITON_STRING_TO_NUMPY: dict[str, Any] = {
    "TYPE_BOOL": bool,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}

_model_dir = Path()


class TritonError:
    """A failure to be put into a response; a value, not an exception."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class TritonModelException(Exception):
    """What Triton's own functions raise."""


class Tensor:
    """A named array; strings are held as ``bytes``, as they are on the wire."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"Tensor {name}: got {type(array).__name__}, expected numpy.ndarray")
        if array.dtype.kind in "OSU":
            flat = [x if isinstance(x, bytes) else str(x).encode("utf-8") for x in array.ravel()]
            strings = np.empty(len(flat), dtype=np.object_)
            strings[:] = flat
            array = strings.reshape(array.shape)
        self._name, self._array = name, np.ascontiguousarray(array) if array.ndim else array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array

    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def triton_dtype(self) -> Any:
        return self._array.dtype

    def is_cpu(self) -> bool:
        return True


class InferenceRequest:
    """One request, which may be a batch."""

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int = 0,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        model_version: int = -1,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._request_id, self._correlation_id = request_id, correlation_id
        self._inputs, self._requested = list(inputs), list(requested_output_names)
        self._model_name, self._model_version = model_name, model_version
        self._parameters = json.dumps(dict(parameters or {}))

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> set[str]:
        return set(self._requested)

    def request_id(self) -> str:
        return self._request_id

    def correlation_id(self) -> int:
        return self._correlation_id

    def model_name(self) -> str:
        return self._model_name

    def model_version(self) -> int:
        return self._model_version

    def parameters(self) -> str:
        return self._parameters

    def is_cancelled(self) -> bool:
        return False


class InferenceResponse:
    """The answer to one request: tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._output_tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._output_tensors

    def error(self) -> TritonError | None:
        return self._error

    def has_error(self) -> bool:
        return self._error is not None


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The request's input of this name, or None."""
    return next((t for t in inference_request.inputs() if t.name() == name), None)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The response's output of this name, or None."""
    return next((t for t in inference_response.output_tensors() if t.name() == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The config's input of this name, or None."""
    return next((t for t in model_config.get("input", []) if t["name"] == name), None)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The config's output of this name, or None."""
    return next((t for t in model_config.get("output", []) if t["name"] == name), None)


def get_model_dir() -> str:
    """The version folder of the model that `load` loaded last."""
    return str(_model_dir)


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type of a config.pbtxt type name."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


class Logger:
    """Keeps what a model logs: ``Logger.lines`` holds (level, message); `load` empties it."""

    lines: list[tuple[str, str]] = []  # noqa: RUF012 - one log for all, as in Triton

    INFO, WARNING, ERROR, VERBOSE = "info", "warning", "error", "verbose"

    @classmethod
    def log(cls, message: str, level: str = INFO) -> None:
        cls.lines.append((level, message))

    @classmethod
    def log_info(cls, message: str) -> None:
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        cls.log(message, cls.VERBOSE)


class ModelConfig:
    """What `auto_complete_config` may fill in: batch size, inputs, outputs, a scheduler."""

    def __init__(self, model_config: str) -> None:
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        if self._model_config["max_batch_size"] > max_batch_size:
            raise ValueError(f"configuration specified max_batch_size {self._model_config['max_batch_size']}")
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        if "sequence_batching" in self._model_config or "ensemble_scheduling" in self._model_config:
            raise ValueError("the configuration has another scheduler")
        self._model_config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, bool]) -> None:
        self._model_config.setdefault("model_transaction_policy", {}).update(transaction_policy_dict)

    def add_input(self, input: Mapping[str, Any]) -> None:  # noqa: A002 - Triton's name
        self._add("input", input, {"name", "data_type", "dims", "optional"})

    def add_output(self, output: Mapping[str, Any]) -> None:
        self._add("output", output, {"name", "data_type", "dims"})

    def _add(self, kind: str, tensor: Mapping[str, Any], allowed: set[str]) -> None:
        if not {"name", "data_type", "dims"} <= set(tensor) <= allowed:
            raise ValueError(f"{kind} has properties {sorted(tensor)}")
        for known in self._model_config.setdefault(kind, []):
            if known["name"] == tensor["name"]:
                for key in ("data_type", "dims"):
                    if known.get(key) and known[key] not in ("TYPE_INVALID", tensor[key]):
                        raise ValueError(f"{kind} {tensor['name']}: configuration has {key} {known[key]}")
                known.update(tensor)
                return
        self._model_config[kind].append(dict(tensor))


def strings(*values: str | bytes) -> Array:
    """A STRING tensor [n, 1], as requests hold it."""
    array = np.empty((len(values), 1), dtype=np.object_)
    array[:, 0] = values
    return array


def model_config(
    *,
    inputs: Mapping[str, tuple[str, Sequence[int]]],
    outputs: Mapping[str, tuple[str, Sequence[int]]],
    parameters: Mapping[str, str] | None = None,
    max_batch_size: int = 8,
    name: str = "fake",
    **more: Any,
) -> dict[str, Any]:
    """A config as Triton hands it to `initialize`, before it is turned into JSON.

    Tensors are ``{name: (config type, dims without the batch)}``, e.g. ``{"text": ("TYPE_STRING", [1])}``.
    """
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": max_batch_size,
        "input": [{"name": n, "data_type": t, "dims": list(d)} for n, (t, d) in inputs.items()],
        "output": [{"name": n, "data_type": t, "dims": list(d)} for n, (t, d) in outputs.items()],
        "parameters": {key: {"string_value": value} for key, value in (parameters or {}).items()},
        **more,
    }


@dataclass
class LoadedModel:
    """A model.py that was loaded and initialized.

    ``execute`` takes requests as mappings from input name to array; an answer is a mapping from output name to array,
    or the TritonError. One answer a request, in order.
    """

    module: ModuleType
    model: Any
    config: Mapping[str, Any]
    outputs: tuple[str, ...] = field(default=())

    def execute(
        self, *requests: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> list[dict[str, Array] | TritonError]:
        """Run all requests in one call, as the dynamic batcher does; ``outputs`` are those asked for (default: all)."""
        wanted = list(self.outputs if outputs is None else outputs)
        made = [
            InferenceRequest(
                request_id=str(index),
                inputs=[Tensor(name, array) for name, array in request.items()],
                requested_output_names=wanted,
                model_name=self.config["name"],
                model_version=1,
            )
            for index, request in enumerate(requests)
        ]
        responses = self.model.execute(made)
        if not isinstance(responses, list) or len(responses) != len(made):
            raise AssertionError(f"execute returned {responses!r} for {len(made)} requests")
        return [self._answer(response, wanted) for response in responses]

    def infer(self, outputs: Sequence[str] | None = None, **inputs: Array) -> dict[str, Array]:
        """Run one request. Raises: AssertionError with the message when the model answers with an error."""
        (answer,) = self.execute(inputs, outputs=outputs)
        if isinstance(answer, TritonError):
            raise AssertionError(answer.message())
        return answer

    def _answer(self, response: InferenceResponse, wanted: Sequence[str]) -> dict[str, Array] | TritonError:
        error = response.error()
        if error is not None:
            return error
        arrays = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        for name, array in arrays.items():
            self._check_output(name, array)
        missing = [name for name in wanted if name not in arrays]
        if missing:
            raise AssertionError(f"requested outputs {missing} were not produced, got {list(arrays)}")
        return {name: arrays[name] for name in wanted}

    def _check_output(self, name: str, array: Array) -> None:
        declared = get_output_config_by_name(self.config, name)
        if declared is None:
            raise AssertionError(f"output {name} is not declared in the config")
        if array.dtype != np.dtype(triton_string_to_numpy(declared["data_type"])):
            raise AssertionError(f"output {name} is {array.dtype}, declared {declared['data_type']}")
        dims = [-1, *declared["dims"]] if self.config["max_batch_size"] else declared["dims"]
        if len(dims) != array.ndim or any(d not in (-1, s) for d, s in zip(dims, array.shape, strict=True)):
            raise AssertionError(f"output {name} has shape {list(array.shape)}, declared {dims}")


@contextmanager
def load(
    version_folder: Path, config: Mapping[str, Any], *, backend: Path | None = None, kind: str = "CPU"
) -> Iterator[LoadedModel]:
    """Import ``version_folder/model.py`` with its folder on the path, initialize it, and finalize it at the end.

    The folder must be ``<model>/<version>``. Nothing that the import added stays in ``sys.modules`` or ``sys.path``.
    With ``backend``, a Python-based backend's folder, the code is that folder's model.py. ``kind`` is the instance's.
    What `auto_complete_config` makes of the configuration is what `initialize` gets.
    Raises: whatever the module or its `initialize` raises, which is what makes a load fail in Triton.
    """
    global _model_dir
    _model_dir = version_folder.resolve()
    folder = (backend or version_folder).resolve()
    Logger.lines.clear()
    before, path_before, no_bytecode = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.modules["triton_python_backend_utils"] = sys.modules[__name__]
    sys.path.append(str(folder))  # appended: an installed package of the same name wins, as in Triton
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    model = None
    try:
        spec = importlib.util.spec_from_file_location("conch_fake_model", folder / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["conch_fake_model"] = module
        spec.loader.exec_module(module)
        if hasattr(module.TritonPythonModel, "auto_complete_config"):
            completed = module.TritonPythonModel.auto_complete_config(ModelConfig(json.dumps(config)))
            config = completed.as_dict()
        model = module.TritonPythonModel()
        model.initialize(
            {
                "model_config": json.dumps(config),
                "model_name": config["name"],
                "model_repository": str(_model_dir.parent),
                "model_version": _model_dir.name,
                "model_instance_kind": kind,
                "model_instance_name": f"{config['name']}_0_0",
                "model_instance_device_id": "0",
            }
        )
        names = tuple(tensor["name"] for tensor in config["output"])
        yield LoadedModel(module, model, config, names)
    finally:
        if model is not None and hasattr(model, "finalize"):
            model.finalize()
        sys.dont_write_bytecode = no_bytecode
        sys.path[:] = path_before
        _forget(folder, before)


def _forget(folder: Path, before: Mapping[str, ModuleType]) -> None:
    """Drop the modules that came from the folder; packages that it imported (numpy, tokenizers) may stay."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in before and file is not None and Path(file).parent.resolve() == folder:
            del sys.modules[name]
    if "triton_python_backend_utils" in before:
        sys.modules["triton_python_backend_utils"] = before["triton_python_backend_utils"]
    else:
        sys.modules.pop("triton_python_backend_utils", None)
