"""Run a written model file directly, with the library that the served backend also uses.

The answer is a `Reference` like the source's own, so parity compares two functions and knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError
from conch.tensor_spec import Array, ModelSignature, from_numpy_type
from export.source import Reference, Tensors

FILE_NAMES = {"onnx": "model.onnx", "torchscript": "model.pt"}


def open_file(path: Path, signature: ModelSignature) -> Reference:
    """Load a model file; returns the function that runs it. Raises: ExportError when the library refuses it."""
    return open_torchscript(path, signature) if path.suffix == ".pt" else open_onnx(path)


def onnx_session(path: Path) -> Any:
    """An onnxruntime.InferenceSession on the CPU, logging nothing. Raises: ExportError with its complaint."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise _load_error(path, error) from error


def _load_error(path: Path, error: Exception) -> ExportError:
    text = str(error)
    if "Duplicate definition of name" in text:
        name = text.split("Duplicate definition of name", 1)[1].split("(", 1)[-1].split(")", 1)[0]
        return ExportError(
            f"the output name {name} breaks the graph: a value inside it has the same name",
            where=path.name,
            got=f"Duplicate definition of name ({name})",
            expected="names that nothing inside the graph carries",
            fix="choose another name for that output",
        )
    return ExportError("ONNX Runtime does not load the written file", where=path.name, got=text.strip())


def open_onnx(path: Path) -> Reference:
    """Run an ONNX file with ONNX Runtime. Raises: ExportError."""
    session = onnx_session(path)
    outputs = [output.name for output in session.get_outputs()]
    inputs = [i.name for i in session.get_inputs()]

    def run(tensors: Tensors) -> dict[str, Array]:
        feeds = {name: _as_str(array) for name, array in tensors.items() if name in inputs}
        return dict(zip(outputs, session.run(outputs, feeds), strict=True))

    return run


def _as_str(array: Array) -> Array:
    """Strings as ONNX Runtime wants them: an object array of ``str``."""
    if from_numpy_type(array.dtype).wire != "BYTES":
        return array
    flat = [x.decode("utf-8") if isinstance(x, bytes) else str(x) for x in array.ravel().tolist()]
    return np.array(flat, dtype=object).reshape(array.shape)


def open_torchscript(path: Path, signature: ModelSignature) -> Reference:
    """Run a TorchScript file as Triton's PyTorch backend does: inputs by name, outputs in order."""
    import torch

    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ExportError("torch.jit does not load the written file", where=path.name, got=error) from error
    names = [argument.name for argument in module.forward.schema.arguments][1:]
    by_index = all("__" in t.name for t in signature.inputs)

    def run(tensors: Tensors) -> dict[str, Array]:
        arguments = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in tensors.items()}
        with torch.inference_mode():
            if by_index:
                order = sorted(arguments, key=lambda name: int(name.rsplit("__", 1)[1]))
                result = module(*(arguments[name] for name in order))
            else:
                result = module(*(arguments[name] for name in names if name in arguments))
        return _named_outputs(result, signature)

    return run


def _named_outputs(result: Any, signature: ModelSignature) -> dict[str, Array]:
    values: Sequence[Any]
    if isinstance(result, Mapping):
        raise ExportError(
            "the TorchScript module returns a dict, which Triton's PyTorch backend does not read",
            expected="a tensor, or a tuple or list of tensors",
        )
    values = list(result) if isinstance(result, tuple | list) else [result]
    if len(values) < len(signature.outputs):
        raise ExportError(
            "the model returns fewer outputs than its signature names",
            got=len(values),
            expected=", ".join(t.name for t in signature.outputs),
        )
    by_index = all("__" in t.name for t in signature.outputs)
    named = {}
    for position, spec in enumerate(signature.outputs):
        index = int(spec.name.rsplit("__", 1)[1]) if by_index else position
        named[spec.name] = values[index].detach().cpu().numpy()
    return named
