"""A torch module as a TorchScript file, in the form that Triton's PyTorch backend reads.

That backend feeds inputs by the names of forward's arguments (or NAME__INDEX), and takes outputs in the order of the
config from a tensor or a tuple: a dict is refused. So the module is wrapped to return a tuple.
Source: https://github.com/triton-inference-server/pytorch_backend#naming-conventions
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from conch.tensor_spec import ModelSignature
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Tensors
from export.to_onnx import pick_outputs, widen


def write_torch(module: Any, example: Tensors, signature: ModelSignature, path: Path, options: ExportOptions) -> None:
    """Trace a torch module, called with the signature's inputs by keyword, into a TorchScript file.

    A module that is TorchScript already is saved as it is. Raises: ExportError.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        torch.jit.save(module, str(path))
        return
    tensors = tuple(torch.from_numpy(widen(example[spec.name], spec, signature)) for spec in signature.inputs)
    try:
        with quiet(), torch.no_grad():
            wrapped = _wrapper(module, [t.name for t in signature.inputs], [t.name for t in signature.outputs])
            traced = torch.jit.trace(wrapped.eval(), tensors, check_trace=False)
            # Not frozen: freezing turns weights into constants, which a server cannot move to a GPU.
            torch.jit.save(traced, str(path))
    except (ExportError, OSError):
        raise
    except Exception as error:  # whatever the module's code raises
        raise ExportError(
            "torch could not trace the model to TorchScript",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            fix="export with --format onnx",
        ) from error


def _wrapper(module: Any, inputs: list[str], outputs: list[str]) -> Any:
    """The module with a forward whose arguments have the inputs' names, returning a tuple."""
    import torch

    class Named(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return pick_outputs(self.module(**dict(zip(inputs, tensors, strict=True))), outputs)

    # torch.jit takes the argument names of the graph from here.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *inputs)]
    Named.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return Named()
