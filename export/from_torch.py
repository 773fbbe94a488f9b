"""A torch module, from a factory in the user's code or from a file, as a Source.

Everything that a factory does not say is found by running the module: output names and types, and which dimensions
follow the input's. Nothing here knows of formats; `to_onnx` and `to_torchscript` write.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError, SignatureError, nearest
from conch.tensor_spec import Array, ModelSignature, TensorSpec, from_numpy_type
from export import read_samples, to_onnx, to_torchscript
from export.check_graph import probes
from export.from_torch_target import Loaded, first_line, from_factory, from_file, is_file, to_array
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source, Tensors


def load(
    target: str,
    options: ExportOptions,
    *,
    dynamic: Sequence[str] = (),
    outputs: Sequence[str] = (),
    trust: bool = False,
) -> Source:
    """A Source from ``MODULE:FACTORY`` or ``FILE.pt``.

    ``dynamic`` are "INPUT:AXIS", ``outputs`` the outputs' names in order. Raises: ExportError, UntrustedSource.
    """
    loaded = from_file(Path(target), options, trust=trust) if is_file(target) else from_factory(target)
    if options.samples is not None and not is_file(target):
        extra = tuple(read_samples.read(options.samples))
        loaded = dataclasses.replace(loaded, samples=(*loaded.samples, *extra))
    axes = {**loaded.dynamic}
    for name, axis in map(_parse_dynamic, dynamic):
        axes[name] = (*axes.get(name, ()), axis)
    return build(dataclasses.replace(loaded, dynamic=axes), options, outputs=outputs)


def build(loaded: Loaded, options: ExportOptions, *, outputs: Sequence[str] = ()) -> Source:
    """A Source from a module and its examples; ``outputs`` as in `load`. Raises: ExportError."""
    module = loaded.module.eval()
    names = _argument_order(module, loaded.samples[0])
    unnamed = ModelSignature(_input_specs(names, loaded, options.max_batch_size > 0), (), options.max_batch_size)
    samples = read_samples.fit(loaded.samples, unnamed, where="example inputs")
    answers = [_try(module, probe) for probe in probes(samples, unnamed)]
    keys = _choose_outputs(list(answers[0]), outputs)
    specs = (_output_spec(name, [a[key] for a in answers], unnamed) for name, key in keys.items())
    signature = dataclasses.replace(unnamed, outputs=tuple(specs))
    picked = _picking(module, list(keys.values()))

    def reference(tensors: Tensors) -> dict[str, Array]:
        answer = _try(module, tensors)
        return {name: answer[key] for name, key in keys.items()}

    def write(path: Path, chosen: ExportOptions) -> None:
        writer = to_onnx if chosen.format == "onnx" else to_torchscript
        writer.write_torch(picked, samples[0], signature, path, chosen)

    return Source(
        provenance=loaded.provenance,
        signature=signature,
        reference=reference,
        samples=samples,
        write=write,
    )


def _argument_order(module: Any, sample: Tensors) -> list[str]:
    """The sample's names in the order of forward's arguments. Raises: ExportError for a name that forward lacks."""
    import torch

    if _indexed(sample):
        return sorted(sample, key=_index)
    if isinstance(module, torch.jit.ScriptModule):
        known = [argument.name for argument in module.forward.schema.arguments][1:]
    else:
        parameters = inspect.signature(module.forward).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return list(sample)
        known = list(parameters)
    for name in sample:
        if name not in known:
            close = nearest(name, known)
            raise ExportError(
                f"forward has no argument {name}",
                where=type(module).__name__,
                got=", ".join(sample),
                expected=", ".join(known),
                fix=f"did you mean {close}?" if close else "name the example inputs as forward's arguments",
            )
    return [name for name in known if name in sample]


def _input_specs(names: Sequence[str], loaded: Loaded, batched: bool) -> tuple[TensorSpec, ...]:
    """Specs of the inputs: fixed sizes from the first sample, -1 where axes are called variable or samples differ."""
    for name in loaded.dynamic:
        if name not in names:
            raise ExportError(f"there is no input {name} to make dynamic", got=name, expected=", ".join(names))
    specs = []
    for name in names:
        arrays = [sample[name] for sample in loaded.samples if name in sample]
        shape = list(arrays[0].shape)
        if batched and not shape:
            raise ExportError(
                f"input {name} has no batch dimension", got="a single number", fix="add one, or pass --max-batch-size 0"
            )
        for axis, size in enumerate(shape):
            differs = any(a.ndim != len(shape) or a.shape[axis] != size for a in arrays)
            if axis in loaded.dynamic.get(name, ()) or differs:
                shape[axis] = -1
        for axis in loaded.dynamic.get(name, ()):
            if not 0 <= axis < len(shape):
                raise ExportError(f"input {name} has no axis {axis}", got=list(arrays[0].shape))
        specs.append(TensorSpec(name, from_numpy_type(arrays[0].dtype).wire, tuple(shape[1:] if batched else shape)))
    return tuple(specs)


def _named(result: Any) -> dict[str, Any]:
    """What a module returned, by name: a mapping's keys, a named tuple's fields, or output, output_0, output_1..."""
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    if hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if isinstance(result, tuple | list) and len(result) > 1:
        return {f"output_{i}": value for i, value in enumerate(result)}
    return {"output": result[0] if isinstance(result, tuple | list) else result}


def _call(module: Any, tensors: Mapping[str, Any]) -> Any:
    """Call a module by the names of forward's arguments or, where all inputs are NAME__INDEX, by position."""
    if _indexed(tensors):
        return module(*(tensors[name] for name in sorted(tensors, key=_index)))
    return module(**tensors)


def _indexed(names: Iterable[str]) -> bool:
    """Whether names follow Triton's NAME__INDEX: https://github.com/triton-inference-server/pytorch_backend."""
    return all(re.fullmatch(r".+__\d+", name) for name in names)


def _index(name: str) -> int:
    return int(name.rpartition("__")[2])


def _picking(module: Any, keys: list[str]) -> Any:
    """A module that returns a tuple of these outputs; TorchScript stays what it is."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return module

    class Picking(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, **tensors: Any) -> Any:
            named = _named(_call(self.module, tensors))
            return tuple(named[key] for key in keys)

    return Picking()


def _try(module: Any, probe: Tensors) -> dict[str, Array]:
    """The module's outputs by name. Raises: ExportError when it fails, or returns something else than tensors."""
    import torch

    try:
        with torch.inference_mode(), quiet():
            named = _named(_call(module, {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in probe.items()}))
    except Exception as error:  # whatever the module's code raises
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in probe.items())
        raise ExportError(
            "the module itself fails on its example inputs, or on a batch made of them",
            where=shapes,
            got=f"{type(error).__name__}: {first_line(error)}",
            fix="mend forward, or pass --max-batch-size 0 if it takes no batches",
        ) from error
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise ExportError(
                f"output {name} is no tensor", got=type(value).__name__, expected="tensors, in a tuple or by name"
            )
    return {name: to_array(value) for name, value in named.items()}


def _choose_outputs(keys: list[str], names: Sequence[str]) -> dict[str, str]:
    """Served name -> the module's own: a choice where every name is the module's, else new names in order."""
    if len(names) > len(keys):
        raise ExportError("more outputs are named than there are", got=", ".join(names), expected=", ".join(keys))
    if not names or all(name in keys for name in names):
        return {name: name for name in names or keys}
    return dict(zip(names, keys, strict=False))


def _output_spec(name: str, arrays: Sequence[Array], signature: ModelSignature) -> TensorSpec:
    shapes = [array.shape[1:] if signature.batched else array.shape for array in arrays]
    if signature.batched and arrays[0].ndim == 0:
        raise ExportError(f"output {name} has no batch dimension", got="a single number", expected="one row an item")
    dims = [
        size if all(len(s) == len(shapes[0]) and s[i] == size for s in shapes) else -1
        for i, size in enumerate(shapes[0])
    ]
    try:
        return TensorSpec(name, from_numpy_type(arrays[0].dtype).wire, tuple(dims))
    except SignatureError as error:
        raise ExportError(error.what, got=error.got, expected=error.expected, fix=error.fix) from error


def _parse_dynamic(text: str) -> tuple[str, int]:
    name, _, axis = text.rpartition(":")
    if not name or not axis.isdigit():
        raise ExportError("--dynamic takes an input and an axis", got=text, expected="INPUT:AXIS, e.g. tokens:1")
    return name, int(axis)
