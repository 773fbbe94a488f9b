"""A torch module as an ONNX file whose batch dimension, and every variable one, is dynamic.

Any `from_X` that holds a torch module can use `write_torch` in its Source.write. Shapes come from the signature: the
first dimension where it is batched, and each -1 in a tensor's dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError
from conch.releases import release
from conch.tensor_spec import ModelSignature, TensorSpec
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Tensors

# torch's own exporter writes opset 18 to 21 without converting; more brings nothing here that an older server loads.
NEWEST_OPSET = 20

# Protobuf takes no message of 2 GB or more; above this, weights lie in a file beside the graph.
ONE_FILE_BYTES = 1_800_000_000


def write_torch(module: Any, example: Tensors, signature: ModelSignature, path: Path, options: ExportOptions) -> None:
    """Export a torch module, called with the signature's inputs by keyword, to an ONNX file.

    ``example`` is one real input, batched where the signature is. The module returns a tensor, a tuple in the order of
    the signature's outputs, or a mapping that holds them by name. Raises: ExportError.
    """
    import torch

    names = [spec.name for spec in signature.inputs]
    tensors = tuple(torch.from_numpy(widen(example[spec.name], spec, signature)) for spec in signature.inputs)
    shapes = tuple(_dynamic_dims(spec, batched=signature.batched) for spec in signature.inputs)
    try:
        if isinstance(module, torch.jit.ScriptModule):
            _write_script(module, tensors, signature, path, options)
            return
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                _wrapper(module, names, [spec.name for spec in signature.outputs]).eval(),
                tensors,
                dynamo=True,
                input_names=names,
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=(shapes,),
                opset_version=options.opset or min(NEWEST_OPSET, release(options.target).max_opset),
                verbose=False,
            )
            assert program is not None
            _forget_where_from(program.model)
            program.model.ir_version = min(program.model.ir_version, release(options.target).max_ir_version)
            program.save(str(path), external_data=_weight_bytes(module) > ONE_FILE_BYTES)
    except (ExportError, OSError):
        raise
    except Exception as error:  # the exporter raises whatever the module's code raises
        raise _torch_error(error, names, signature) from error


def _forget_where_from(model: Any) -> None:
    """Drop the exporter's notes: stack traces with this machine's paths, so that the same model gives the same file."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _write_script(module: Any, tensors: Any, signature: ModelSignature, path: Path, options: ExportOptions) -> None:
    """TorchScript, which only torch's older exporter takes (torch 2.13): inputs by position, outputs in order."""
    import torch

    tensor_axes = {
        spec.name: {
            axis: f"{spec.name}_{axis}" for axis, size in enumerate(spec.shape(batched=signature.batched)) if size == -1
        }
        for spec in (*signature.inputs, *signature.outputs)
    }
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            tensors,
            str(path),
            dynamo=False,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_axes=tensor_axes,
            opset_version=options.opset or min(NEWEST_OPSET, release(options.target).max_opset),
        )


def widen(array: Any, spec: TensorSpec, signature: ModelSignature) -> Any:
    """An example that no exporter takes for fixed: they specialize on sizes of 1, so those become 2 by repetition."""
    axes = ([0] if signature.batched else []) + [i + signature.batched for i, d in enumerate(spec.dims) if d == -1]
    for axis in axes:
        if array.shape[axis] == 1:
            array = np.repeat(array, 2, axis=axis)
    return np.ascontiguousarray(array)


def _dynamic_dims(spec: TensorSpec, *, batched: bool) -> dict[int, Any]:
    from torch.export import Dim

    return {axis: Dim.DYNAMIC for axis, size in enumerate(spec.shape(batched=batched)) if size == -1}


def _wrapper(module: Any, inputs: list[str], outputs: list[str]) -> Any:
    """The module, taking its inputs in order and returning a tuple of just the signature's outputs."""
    import torch

    class InOrder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return pick_outputs(self.module(**dict(zip(inputs, tensors, strict=True))), outputs)

    return InOrder()


def pick_outputs(result: Any, names: list[str]) -> tuple[Any, ...]:
    """The named outputs of whatever a module returned, in order. Raises: ExportError."""
    if isinstance(result, Mapping):
        missing = [name for name in names if name not in result]
        if missing:
            raise ExportError(
                f"the module returns no {', '.join(missing)}", got=", ".join(result), expected=", ".join(names)
            )
        return tuple(result[name] for name in names)
    values = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(values) < len(names):
        raise ExportError("the module returns fewer outputs than named", got=len(values), expected=", ".join(names))
    return values[: len(names)]


def _weight_bytes(module: Any) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def _torch_error(error: BaseException, names: list[str], signature: ModelSignature) -> ExportError:
    """The exporter's complaint, cut to its cause; a specialized dimension is told by name."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ExportError):
        return cause
    text = str(cause).strip()
    fixed = [line.strip(" -") for line in text.splitlines() if "inferred a static shape" in line]
    if fixed:
        batch = signature.batched and any(".shape[0]" in line or "[0]" in line.rsplit("]", 2)[-2:] for line in fixed)
        return ExportError(
            "the model's code fixes " + ("the batch dimension" if batch else "a dimension that should be variable"),
            got="; ".join(fixed),
            expected=f"any size: inputs {', '.join(names)}",
            fix="use x.shape[0] and -1 in reshapes instead of numbers"
            + (", or export with --max-batch-size 0" if batch else ""),
        )
    return ExportError(
        "torch could not export the model to ONNX",
        got=f"{type(cause).__name__}: {_first_lines(text)}",
        fix="run again with `conch --debug` for the whole trace, or try --format torchscript",
    )


def _first_lines(text: str, count: int = 6) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n            ".join(lines[:count]) + (" ..." if len(lines) > count else "")
