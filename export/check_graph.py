"""Is the written file one that the target's Triton will load and batch? Loaded and run, not only read.

Export tools report success for files that no runtime loads, and for graphs in which a number from the example became
a constant. So: versions against the target release, names and shapes against the signature, then runs with batch 1 and
3 and, where a dimension is variable, two lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError
from conch.releases import Release
from conch.tensor_spec import Array, ModelSignature, TensorSpec, from_onnx_type
from export.run_file import onnx_session, open_file
from export.source import Reference, Source, Tensors


@dataclass(frozen=True)
class Checked:
    """A written file that loads and runs: the function that runs it, and its versions where it is ONNX."""

    run: Reference
    opset: int | None = None
    ir_version: int | None = None
    cpu_only: bool = False


def check(path: Path, source: Source, target: Release) -> Checked:
    """Check a written file, from its header to its answers. Raises: ExportError, naming the check that failed."""
    check_ranks(source.signature)
    if path.suffix == ".onnx":
        checked = check_onnx(path, source.signature, target)
    else:
        checked = Checked(run=open_file(path, source.signature))
    for probe in probes(source.samples, source.signature):
        check_run(checked.run, probe, source.signature)
    return checked


def check_ranks(signature: ModelSignature) -> None:
    """Raise ExportError for a tensor of one number an item: Triton loads no config whose dims are empty."""
    for spec in (*signature.inputs, *signature.outputs):
        if not spec.dims:
            raise ExportError(
                f"tensor {spec.name} has no dimension beside the batch, and Triton wants one",
                got=spec.describe(batched=signature.batched),
                expected=f"{spec.name} [batch, 1]",
                fix="reshape it in the model, e.g. y.unsqueeze(1), or pass --max-batch-size 0",
            )


def check_onnx(path: Path, signature: ModelSignature, target: Release) -> Checked:
    """Check an ONNX file's versions, names and declared shapes, and load it. Raises: ExportError."""
    model = read_onnx(path)
    check_versions(model, target, path.name)
    session = onnx_session(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for kind, specs, values in (
        ("input", signature.inputs, inputs),
        ("output", signature.outputs, model.graph.output),
    ):
        check_tensors(kind, specs, {value.name: value for value in values}, batched=signature.batched)
    del session
    return Checked(
        run=open_file(path, signature),
        opset=default_opset(model),
        ir_version=model.ir_version,
        cpu_only=_cpu_only(model),
    )


def read_onnx(path: Path) -> Any:
    """The ModelProto of a file without its external weights. Raises: ExportError."""
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and OSError
        raise ExportError("that is no ONNX file", where=path, got=error) from error


def default_opset(model: Any) -> int:
    """The version of ONNX's own operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def check_versions(model: Any, target: Release, where: object) -> None:
    """Raise ExportError when the target release's ONNX Runtime is too old for the file."""
    for name, got, limit in (
        ("IR version", model.ir_version, target.max_ir_version),
        ("opset", default_opset(model), target.max_opset),
    ):
        if got > limit:
            raise ExportError(
                f"the model's {name} is too new for Triton {target.tag}",
                where=where,
                got=f"{name} {got}",
                expected=f"{limit} or lower (ONNX Runtime {target.onnxruntime})",
                fix="choose a newer --target, or a lower --opset",
            )


def check_tensors(kind: str, specs: Sequence[TensorSpec], values: dict[str, Any], *, batched: bool) -> None:
    """Raise ExportError unless the graph declares tensors that fit the signature."""
    for spec in specs:
        if spec.name not in values:
            raise ExportError(
                f"the written graph has no {kind} named {spec.name}",
                got=", ".join(values),
                expected=", ".join(s.name for s in specs),
            )
        tensor = values[spec.name].type.tensor_type
        got_type = from_onnx_type(tensor.elem_type).wire
        if got_type != spec.datatype:
            raise ExportError(f"{kind} {spec.name} has another type in the graph", got=got_type, expected=spec.datatype)
        if tensor.HasField("shape"):
            shape = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            _check_declared(kind, spec, shape, batched=batched)
    extra = [name for name in values if name not in {spec.name for spec in specs}]
    if kind == "input" and extra:
        raise ExportError(
            f"the written graph needs an input that the signature does not have: {', '.join(extra)}",
            expected=", ".join(s.name for s in specs),
        )


def _check_declared(kind: str, spec: TensorSpec, shape: list[int], *, batched: bool) -> None:
    due = spec.shape(batched=batched)
    if batched and shape and shape[0] > 0:
        raise _fixed_batch(f"{kind} {spec.name} {shape}")
    if len(shape) != len(due):
        raise ExportError(f"{kind} {spec.name} has another rank in the graph", got=shape, expected=list(due))
    for got, wanted in zip(shape, due, strict=True):
        if got > 0 and got != wanted:
            raise ExportError(
                f"{kind} {spec.name} has a fixed size in the graph",
                got=shape,
                expected=f"{list(due)} (-1: any size)",
                fix="export it with that dimension dynamic",
            )


def _fixed_batch(got: str) -> ExportError:
    return ExportError(
        "the graph fixed the batch dimension",
        got=got,
        expected="a first dimension of any size",
        fix="export it with a dynamic batch dimension, or with --max-batch-size 0",
    )


def check_run(run: Reference, tensors: Tensors, signature: ModelSignature) -> dict[str, Array]:
    """Run once and check the shapes that come out. Raises: ExportError."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in tensors.items())
    size = next(iter(tensors.values())).shape[0] if signature.batched else 0
    try:
        outputs = run(tensors)
    except ExportError:
        raise
    except Exception as error:  # whatever the runtime raises
        lines = str(error).strip().splitlines()
        raise ExportError(
            f"the written model does not run with {f'a batch of {size}' if signature.batched else 'these shapes'}",
            where=shapes,
            got=lines[-1] if lines else type(error).__name__,
            fix="the example's sizes have become constants in the graph: use shapes of the input in the model's code",
        ) from error
    for spec in signature.outputs:
        shape = outputs[spec.name].shape
        if signature.batched and (not shape or shape[0] != size):
            raise _fixed_batch(f"output {spec.name} {list(shape)} for a batch of {size}")
        if not spec.accepts(shape, batched=signature.batched):
            raise ExportError(
                f"output {spec.name} comes in a shape that the signature does not allow",
                where=shapes,
                got=list(shape),
                expected=list(spec.shape(batched=signature.batched)),
            )
    return outputs


def probes(samples: Sequence[Tensors], signature: ModelSignature) -> list[dict[str, Array]]:
    """Inputs made of the samples: batches of 1 and 3 and, where a dimension is variable, of a second length.

    Without a batch dimension: a sample, and one of another length.
    """
    if not samples:
        raise ExportError("there are no samples to check the model with", fix="give some with --samples")
    first = dict(samples[0])
    other = next((dict(s) for s in samples if _lengths(s, signature) != _lengths(first, signature)), None)
    if other is None and any(-1 in spec.dims for spec in signature.inputs):
        other = _shortened(first, signature)
    if not signature.batched:
        return [first] if other is None else [first, other]
    sizes = [size for size in (1, 3) if size <= signature.max_batch_size]
    found = [_batch(first, size) for size in sizes]
    if other is not None:
        found.append(_batch(other, sizes[-1]))
    return found


def _lengths(sample: Tensors, signature: ModelSignature) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] if signature.batched else array.shape for name, array in sample.items()}


def _batch(sample: Tensors, size: int) -> dict[str, Array]:
    """``size`` rows of a sample, repeated from the start where it has fewer."""
    return {name: array[np.arange(size) % array.shape[0]] for name, array in sample.items()}


def _shortened(sample: Tensors, signature: ModelSignature) -> dict[str, Array]:
    """A sample whose variable dimensions are cut to half (or doubled, where they are 1): equal sizes stay equal."""
    changed = {}
    for spec in signature.inputs:
        array = sample[spec.name]
        for axis, size in enumerate(spec.shape(batched=signature.batched)):
            if size != -1 or (axis == 0 and signature.batched):
                continue
            length = array.shape[axis]
            array = np.repeat(array, 2, axis) if length == 1 else np.take(array, np.arange((length + 1) // 2), axis)
        changed[spec.name] = array
    return changed


def _cpu_only(model: Any) -> bool:
    """Whether the graph uses operators that ONNX Runtime has for CPUs alone: ai.onnx.ml, and tensors of strings."""
    if any(node.domain == "ai.onnx.ml" for node in model.graph.node):
        return True
    values = (*model.graph.input, *model.graph.output)
    return any(value.type.tensor_type.elem_type == 8 for value in values)
