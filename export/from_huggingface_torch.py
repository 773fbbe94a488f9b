"""A torch module between numpy arrays, for every task: run it as the reference, write it as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from conch.tensor_spec import Array, ModelSignature
from export.options import ExportOptions
from export.source import Tensors, Writer
from export.to_onnx import write_torch as write_onnx
from export.to_torchscript import write_torch as write_torchscript


def run(module: Any, tensors: Tensors) -> tuple[Array, ...]:
    """A torch module's outputs for numpy inputs by keyword."""
    with torch.inference_mode():
        result = module(**to_torch(tensors))
    values = result if isinstance(result, tuple) else (result,)
    return tuple(value.numpy() for value in values)


def writer(module: Any, example: Tensors, signature: ModelSignature) -> Writer:
    """Writes a torch module in the format that the options ask for."""

    def write(path: Path, options: ExportOptions) -> None:
        chosen = write_onnx if options.format == "onnx" else write_torchscript
        chosen(module, example, signature, path, options)

    return write


def to_torch(tensors: Tensors) -> dict[str, Any]:
    """Numpy arrays as torch tensors, sharing memory where they can."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
