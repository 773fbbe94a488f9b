"""Load a TorchScript module as settings say, and run it on arrays as Triton hands them over.

The only file here that imports torch, and only when a module is loaded: that takes over a second, and Triton starts
each model's code once just to ask whether it completes its configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from conch_backend_config import BackendConfig, LoadFailed
from conch_torch_settings import TorchSettings
from conch_torch_signature import STRINGS, TENSOR, TENSOR_DICT, Forward, Wiring

Array = npt.NDArray[Any]

_CONFIG_TYPES = {
    "torch.bool": "TYPE_BOOL",
    "torch.uint8": "TYPE_UINT8",
    "torch.int8": "TYPE_INT8",
    "torch.int16": "TYPE_INT16",
    "torch.int32": "TYPE_INT32",
    "torch.int64": "TYPE_INT64",
    "torch.float16": "TYPE_FP16",
    "torch.float32": "TYPE_FP32",
    "torch.float64": "TYPE_FP64",
}


def cuda_is_available() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def apply_settings(settings: TorchSettings) -> None:
    """Set the process's threads and the JIT's switches; every instance is a process, so they are its own."""
    import torch

    if settings.intra_op_threads:
        torch.set_num_threads(settings.intra_op_threads)
    if settings.inter_op_threads and settings.inter_op_threads != torch.get_num_interop_threads():
        torch.set_num_interop_threads(settings.inter_op_threads)
    # torch has no public names for these; the native backend sets the same switches from C++.
    torch._C._set_graph_executor_optimize(settings.optimized_execution)
    if settings.jit_profiling is not None:
        torch._C._jit_set_profiling_mode(settings.jit_profiling)
    if settings.jit_executor is not None:
        torch._C._jit_set_profiling_executor(settings.jit_executor)
    if settings.tensor_fuser is not None:
        torch._C._jit_set_texpr_fuser_enabled(settings.tensor_fuser)


def load_module(path: Path, model: str, device: str | None) -> Any:
    """Load a TorchScript file; ``device`` None leaves tensors where the file has them. Raises: LoadFailed."""
    import torch

    try:
        return torch.jit.load(str(path), map_location=device)
    except Exception as error:
        words = str(error).strip().splitlines()
        raise LoadFailed(
            f"{model}: torch {torch.__version__} cannot load {path}",
            got=words[0] if words else type(error).__name__,
            expected="a TorchScript file, as torch.jit.save writes it",
            fix="a state_dict or a pickled module cannot be served: trace or script it first (conch export torch)",
        ) from None


def forward_of(module: Any) -> Forward:
    """The schema of a loaded module's forward."""
    schema = module.forward.schema
    arguments = [a for a in schema.arguments if a.type.kind() != "ClassType"]
    results: list[Any] = [r.type for r in schema.returns]
    if len(results) == 1 and results[0].kind() == "TupleType":
        results = list(results[0].elements())
    kinds = tuple(_kind(r) for r in results)
    return Forward(tuple((a.name, _kind(a.type)) for a in arguments), None if "Any" in kinds else kinds)


def _kind(kind: Any) -> str:
    text = str(kind)
    plain = {"str[]": STRINGS, "Dict(str, Tensor)": TENSOR_DICT, "Tensor (inferred)": TENSOR}
    return plain.get(text, text)


def runner(
    module: Any, config: BackendConfig, wiring: Wiring, settings: TorchSettings, device: str | None
) -> Callable[[dict[str, Array], list[str]], Sequence[Array]]:
    """A function that runs the module: (inputs by name, names of outputs) -> outputs in that order.

    Strings come in as ``bytes`` and are ``List[str]`` in the module. Results are checked against the configuration's
    types, as the native backend does. The function raises ValueError when they differ.
    """
    import torch

    guard = torch.inference_mode if settings.inference_mode else torch.no_grad
    strings = frozenset(t.name for t in config.inputs if t.datatype == "TYPE_STRING")
    due = {t.name: t.datatype for t in config.outputs}
    on_gpu = device is not None and device.startswith("cuda")

    def argument(name: str, array: Array) -> Any:
        if name in strings:
            return _texts(name, array)
        tensor = torch.from_numpy(array)
        return tensor.to(device) if on_gpu else tensor

    def run(arrays: dict[str, Array], wanted: list[str]) -> Sequence[Array]:
        with guard():
            arguments = [argument(name, arrays[name]) for name in wiring.inputs]
            if wiring.as_dict:
                arguments = [dict(zip(wiring.inputs, arguments, strict=True))]
            results = module(*arguments)
            if not isinstance(results, tuple):
                results = (results,)
            outputs = [_output(name, due[name], results, wiring.outputs[name]) for name in wanted]
        if on_gpu and settings.cache_cleaning:
            torch.cuda.empty_cache()
        return outputs

    return run


def _texts(name: str, array: Array) -> list[str]:
    try:
        return [item.decode() for item in array.tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"input {name} holds a string that is not UTF-8: {error}") from None


def _output(name: str, due: str, results: tuple[Any, ...], index: int) -> Array:
    """One result as an array of the type that the configuration declares. Raises: ValueError."""
    if index >= len(results):
        raise ValueError(f"output {name} is result {index} of forward, which returned {len(results)}")
    result = results[index]
    if isinstance(result, list) and all(isinstance(item, str) for item in result):
        if due != "TYPE_STRING":
            raise ValueError(f"output {name} is {due} in config.pbtxt, and List[str] in the model")
        return np.array(result, dtype=np.object_)
    if not hasattr(result, "numpy"):
        raise ValueError(f"output {name} is {type(result).__name__} in the model, expected Tensor or List[str]")
    got = _CONFIG_TYPES.get(str(result.dtype), str(result.dtype))
    if got != due:
        raise ValueError(f"output {name} is {due} in config.pbtxt, and {got} in the model")
    if result.dim() == 0:
        raise ValueError(f"output {name} is a scalar, which the pytorch backend does not support")
    array: Array = result.detach().cpu().contiguous().numpy()
    return array
