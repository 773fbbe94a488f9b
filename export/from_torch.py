"""A torch module, from a factory in the user's code or from a file, as a Source.

Everything that a factory does not say is found by running the module: output names and types, and which dimensions follow
the input's. Nothing here knows of formats; `to_onnx` and `to_torchscript` write.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError, SignatureError, UntrustedSource, nearest
from conch.manifest import sha256
from conch.tensor_spec import Array, ModelSignature, TensorSpec, from_numpy_type
from export import read_samples, to_onnx, to_torchscript
from export.check_graph import probes
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source, Tensors

# Axes of any length, by input: the axis counts the batch dimension, as in the arrays.
Dynamic = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A module with its example inputs (one or several samples) and the axes that its author calls variable."""

    module: Any
    samples: tuple[dict[str, Array], ...]
    dynamic: Dynamic
    provenance: Mapping[str, Any]


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
    loaded = _from_file(Path(target), options, trust=trust) if _is_file(target) else _from_factory(target)
    if options.samples is not None and not _is_file(target):
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
        infer_arguments="--json FILE.json",
    )


def is_torchscript(target: str) -> bool:
    """Whether a target is a TorchScript archive: a zip with code in it."""
    return _is_file(target) and _members(Path(target), "/code/")


def _is_file(target: str) -> bool:
    return Path(target).suffix in (".pt", ".pth", ".ts") or Path(target).is_file()


def _members(path: Path, part: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(part in name for name in archive.namelist())


def _from_factory(target: str) -> Loaded:
    module_name, _, factory_name = target.partition(":")
    if not factory_name:
        raise ExportError(
            "that names no model",
            got=target,
            expected="MODULE:FACTORY, e.g. my_model:build, or a file FILE.pt",
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        user_module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"there is no module {error.name}",
            where=target,
            got=error,
            fix="run conch in the folder that holds it, or install it in this environment",
        ) from error
    if not hasattr(user_module, factory_name):
        close = nearest(factory_name, vars(user_module))
        raise ExportError(
            f"module {module_name} has no {factory_name}", where=target, fix=f"did you mean {close}?" if close else None
        )
    result = getattr(user_module, factory_name)()
    file = getattr(user_module, "__file__", None)
    provenance = {"kind": "torch", "factory": target, **_versions()}
    if file:
        provenance["code_sha256"] = sha256(Path(file))
    return _check_factory_result(result, target, provenance)


def _check_factory_result(result: Any, target: str, provenance: Mapping[str, Any]) -> Loaded:
    import torch

    expected = "(module, {input name: example array, batched}), and optionally {input name: variable axes}"
    if not isinstance(result, tuple) or len(result) not in (2, 3) or not isinstance(result[0], torch.nn.Module):
        raise ExportError(
            "the factory returned something else", where=target, got=type(result).__name__, expected=expected
        )
    examples = result[1] if isinstance(result[1], list | tuple) else [result[1]]
    if not examples or not all(isinstance(e, Mapping) and e for e in examples):
        raise ExportError("the factory returned no example inputs by name", where=target, expected=expected)
    dynamic = {name: tuple(axes) for name, axes in (result[2] if len(result) == 3 else {}).items()}
    samples = tuple({str(name): _to_array(value) for name, value in example.items()} for example in examples)
    return Loaded(result[0], samples, dynamic, provenance)


def _from_file(path: Path, options: ExportOptions, *, trust: bool) -> Loaded:
    if not path.is_file():
        raise ExportError("there is no such file", where=path)
    if options.samples is None:
        raise ExportError(
            "a file says nothing of its inputs", where=path, expected="--samples FILE.npz: an array an input, batched"
        )
    module = _load_torchscript(path) if is_torchscript(str(path)) else _load_pickle(path, trust=trust)
    provenance = {"kind": "torch", "path": str(path), "sha256": sha256(path), **_versions()}
    return Loaded(module, tuple(read_samples.read(options.samples)), {}, provenance)


def _load_torchscript(path: Path) -> Any:
    import torch

    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ExportError("torch.jit does not load the file", where=path, got=_first_line(error)) from error


def _load_pickle(path: Path, *, trust: bool) -> Any:
    import torch

    if not trust:
        raise UntrustedSource(
            "loading a pickled module runs the code in it",
            where=path,
            fix="if the file is your own, or from someone you trust, add --trust; or save it with torch.jit.save",
        )
    try:
        with quiet():
            module = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle raises what it likes
        raise ExportError(
            "torch does not load the file",
            where=path,
            got=f"{type(error).__name__}: {_first_line(error)}",
            fix="the module's class must be importable here: run conch in its folder, or give MODULE:FACTORY",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            "the file holds no module",
            where=path,
            got="a state dict: weights without a model" if isinstance(module, Mapping) else type(module).__name__,
            expected="a torch.nn.Module or TorchScript",
            fix="give MODULE:FACTORY, whose factory builds the module and loads these weights",
        )
    return module


def _argument_order(module: Any, sample: Tensors) -> list[str]:
    """The sample's names in the order of forward's arguments. Raises: ExportError for a name that forward lacks."""
    import torch

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
            named = _named(self.module(**tensors))
            return tuple(named[key] for key in keys)

    return Picking()


def _try(module: Any, probe: Tensors) -> dict[str, Array]:
    """The module's outputs by name. Raises: ExportError when it fails, or returns something else than tensors."""
    import torch

    try:
        with torch.inference_mode(), quiet():
            named = _named(module(**{name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in probe.items()}))
    except Exception as error:  # whatever the module's code raises
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in probe.items())
        raise ExportError(
            "the module itself fails on its example inputs, or on a batch made of them",
            where=shapes,
            got=f"{type(error).__name__}: {_first_line(error)}",
            fix="mend forward, or pass --max-batch-size 0 if it takes no batches",
        ) from error
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise ExportError(
                f"output {name} is no tensor", got=type(value).__name__, expected="tensors, in a tuple or by name"
            )
    return {name: value.detach().cpu().numpy() for name, value in named.items()}


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


def _to_array(value: Any) -> Array:
    """A tensor, an array or nested lists as an array."""
    import torch

    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().numpy())
    return value if isinstance(value, np.ndarray) else read_samples.from_lists(value)


def _versions() -> dict[str, str]:
    import torch

    return {"torch": str(torch.__version__)}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
