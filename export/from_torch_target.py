"""What `conch export torch` is pointed at, a factory in the user's code or a file, as a module with example inputs."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError, UntrustedSource, nearest
from conch.manifest import sha256
from conch.tensor_spec import Array
from export import read_samples
from export.options import ExportOptions
from export.quiet import quiet

# Axes of any length, by input: the axis counts the batch dimension, as in the arrays.
Dynamic = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Loaded:
    """A module with its example inputs (one or several samples) and the axes that its author calls variable."""

    module: Any
    samples: tuple[dict[str, Array], ...]
    dynamic: Dynamic
    provenance: Mapping[str, Any]


def is_torchscript(target: str) -> bool:
    """Whether a target is a TorchScript archive: a zip with code in it."""
    return is_file(target) and _members(Path(target), "/code/")


def is_file(target: str) -> bool:
    """Whether a target is a file, or meant to be one."""
    return Path(target).suffix in (".pt", ".pth", ".ts") or Path(target).is_file()


def _members(path: Path, part: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(part in name for name in archive.namelist())


def from_factory(target: str) -> Loaded:
    """Call MODULE:FACTORY, with the working directory on the path. Raises: ExportError."""
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
    except Exception as error:  # the user's code raises what it likes
        raise ExportError(
            f"module {module_name} fails when it is imported", where=target, got=f"{type(error).__name__}: {error}"
        ) from error
    if not hasattr(user_module, factory_name):
        close = nearest(factory_name, vars(user_module))
        raise ExportError(
            f"module {module_name} has no {factory_name}", where=target, fix=f"did you mean {close}?" if close else None
        )
    try:
        result = getattr(user_module, factory_name)()
    except Exception as error:  # the user's code raises what it likes
        raise ExportError(
            "the factory failed",
            where=target,
            got=f"{type(error).__name__}: {error}",
            fix="run again with `conch --debug` for the trace",
        ) from error
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
    samples = tuple({str(name): to_array(value) for name, value in example.items()} for example in examples)
    return Loaded(result[0], samples, dynamic, provenance)


def from_file(path: Path, options: ExportOptions, *, trust: bool) -> Loaded:
    """Load FILE.pt, with the inputs of --samples. Raises: ExportError, UntrustedSource."""
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
        raise ExportError("torch.jit does not load the file", where=path, got=first_line(error)) from error


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
            got=f"{type(error).__name__}: {first_line(error)}",
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


def to_array(value: Any) -> Array:
    """A tensor, an array or nested lists as an array. Raises: ExportError for a type that numpy lacks."""
    import torch

    if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        raise ExportError(
            "the module works in bfloat16, which its inputs and outputs cannot be compared in",
            got="a tensor of torch.bfloat16",
            expected="float32, or float16",
            fix="return module.float() from the factory, with float32 examples; --precision lowers it afterwards",
        )
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().numpy())
    return value if isinstance(value, np.ndarray) else read_samples.from_lists(value)


def _versions() -> dict[str, str]:
    import torch

    return {"torch": str(torch.__version__)}


def first_line(error: BaseException) -> str:
    """The first line of a message, or the kind of an error that has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
