"""How the names in a configuration find the arguments and results of a TorchScript module's forward.

Pure: works on a schema that was read from the module. The rules are the native backend's (GetNamingConvention,
ValidateInputs, ValidateOutputs in https://github.com/triton-inference-server/pytorch_backend, src/libtorch.cc):

- inputs: all are names of forward's arguments; or all end in ``__INDEX``; or they are taken in config.pbtxt's order;
- a forward with one ``Dict[str, Tensor]`` gets all inputs by name;
- outputs: all end in ``__INDEX``; or they are taken in order. A dict or a list of tensors cannot be served.

TorchScript keeps neither types nor shapes of tensors: only names and counts can be checked at load.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conch_backend_config import NUMPY_TYPES, BackendConfig, LoadFailed, TensorConfig
from conch_batching import ModelInput

_INDEXED = re.compile(r".*?__(\d+)")
_ABSENT_TYPES = ("TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64")
TENSOR, STRINGS, TENSOR_DICT = "Tensor", "List[str]", "Dict[str, Tensor]"


@dataclass(frozen=True)
class Forward:
    """The schema of a forward: arguments as (name, type), ``self`` left out; the types of its results.

    ``results`` None means that the schema does not say.
    """

    arguments: tuple[tuple[str, str], ...]
    results: tuple[str, ...] | None

    def describe(self) -> str:
        """What a person reads: ``forward(x: Tensor) -> Tensor``."""
        arguments = ", ".join(f"{name}: {kind}" for name, kind in self.arguments)
        return f"forward({arguments}) -> {'unknown' if self.results is None else ', '.join(self.results)}"


@dataclass(frozen=True)
class Wiring:
    """Which tensor goes where.

    ``inputs`` are names in the order of forward's arguments; with ``as_dict`` they are the keys of its one dict.
    ``outputs`` gives the index among the results for each output's name. ``notes`` belong in the log.
    """

    inputs: tuple[str, ...]
    outputs: dict[str, int]
    as_dict: bool = False
    notes: tuple[str, ...] = ()


def wire(config: BackendConfig, forward: Forward) -> Wiring:
    """Match the names of the configuration with a forward. Raises: LoadFailed, with both sides shown."""
    _check_config(config, forward)
    notes: list[str] = []
    as_dict = len(forward.arguments) == 1 and forward.arguments[0][1] == TENSOR_DICT
    names = tuple(t.name for t in config.inputs)
    if not as_dict:
        names = _order_inputs(config, forward, notes)
    return Wiring(names, _index_outputs(config, forward, notes), as_dict, tuple(notes))


def model_inputs(config: BackendConfig) -> tuple[ModelInput, ...]:
    """What requests are checked against: the configuration, as TorchScript knows no more."""
    return tuple(ModelInput(t.name, NUMPY_TYPES[t.datatype], t.shape(batched=config.batched)) for t in config.inputs)


def _check_config(config: BackendConfig, forward: Forward) -> None:
    for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
        if not tensors:
            raise LoadFailed(
                f"{config.model_name}: config.pbtxt names no {kind}, and TorchScript does not say types and shapes",
                got=f"no {kind}, and {forward.describe()}",
                expected=f"every {kind} in config.pbtxt",
                fix=f'e.g. {kind} [{{ name: "{kind.upper()}__0" data_type: TYPE_FP32 dims: [-1] }}]',
            )
        for tensor in tensors:
            _check_tensor(config, kind, tensor)
    if config.controls:
        raise LoadFailed(
            f"{config.model_name}: control tensors of sequence_batching do not work with the embedded pytorch backend",
            got=", ".join(config.controls),
            fix="serve the model in NVIDIA's container, or export it to ONNX",
        )


def _check_tensor(config: BackendConfig, kind: str, tensor: TensorConfig) -> None:
    if tensor.datatype in _ABSENT_TYPES:
        raise LoadFailed(
            f"{config.model_name}: {kind} {tensor.name} has a type that the native pytorch backend does not take",
            got=tensor.datatype,
            expected=", ".join(t for t in NUMPY_TYPES if t not in _ABSENT_TYPES),
        )
    if tensor.optional:
        raise LoadFailed(
            f"{config.model_name}: input {tensor.name} is optional, which the native pytorch backend does not support",
            got="optional: true",
            expected="every input in every request",
        )
    shape = tensor.shape(batched=config.batched)
    if tensor.datatype == "TYPE_STRING" and len(shape) != 1:
        raise LoadFailed(
            f"{config.model_name}: {kind} {tensor.name} is a list of strings in TorchScript, which has one dimension",
            got=f"shape {list(shape)}" + (" with the batch" if config.batched else ""),
            expected="[-1]: dims: [1] reshape: { shape: [] } with batching, dims: [-1] without",
        )


def _order_inputs(config: BackendConfig, forward: Forward, notes: list[str]) -> tuple[str, ...]:
    """The inputs' names in the order of forward's arguments."""
    declared = [t.name for t in config.inputs]
    odd = [f"{name}: {kind}" for name, kind in forward.arguments if kind not in (TENSOR, STRINGS)]
    if odd:
        raise LoadFailed(
            f"{config.model_name}: forward has arguments that Triton cannot fill",
            got="; ".join(odd),
            expected=f"{TENSOR} or {STRINGS} each, or a single {TENSOR_DICT}",
        )
    arguments = [name for name, _ in forward.arguments]
    if len(arguments) != len(declared):
        raise LoadFailed(
            f"{config.model_name}: the model has another number of inputs than the configuration",
            got=f"config.pbtxt {len(declared)}: {', '.join(declared)}",
            expected=f"model {len(arguments)}: {forward.describe()}",
        )
    if set(declared) <= set(arguments):
        ordered = arguments
    elif (places := _indexes(declared)) is not None:
        _check_places(config, "input", declared, places, len(arguments))
        ordered = sorted(declared, key=lambda name: places[declared.index(name)])
    else:
        notes.append(
            f"inputs {', '.join(declared)} are neither arguments of {forward.describe()} nor named NAME__INDEX: "
            "taken in the order of config.pbtxt"
        )
        ordered = declared
    _check_kinds(config, forward, ordered)
    return tuple(ordered)


def _check_kinds(config: BackendConfig, forward: Forward, ordered: Sequence[str]) -> None:
    """Strings go to List[str] and tensors to Tensor."""
    types = {t.name: t.datatype for t in config.inputs}
    for name, (argument, kind) in zip(ordered, forward.arguments, strict=True):
        if (types[name] == "TYPE_STRING") != (kind == STRINGS):
            raise LoadFailed(
                f"{config.model_name}: input {name} has another type in the model",
                got=f"config.pbtxt {name} {types[name]}",
                expected=f"model {argument}: {kind}",
            )


def _index_outputs(config: BackendConfig, forward: Forward, notes: list[str]) -> dict[str, int]:
    declared = [t.name for t in config.outputs]
    odd = [kind for kind in forward.results or () if kind not in (TENSOR, STRINGS)]
    if odd:
        raise LoadFailed(
            f"{config.model_name}: forward returns what the pytorch backend cannot give",
            got=forward.describe(),
            expected=f"{TENSOR}, {STRINGS} or a tuple of these",
            fix="wrap the module so that forward returns its tensors as a tuple",
        )
    places = _indexes(declared)
    if places is None:
        notes.append(f"outputs {', '.join(declared)} are not named NAME__INDEX: taken in the order of config.pbtxt")
        places = list(range(len(declared)))
    if forward.results is not None:
        _check_places(config, "output", declared, places, len(forward.results))
    return dict(zip(declared, places, strict=True))


def _indexes(names: Sequence[str]) -> list[int] | None:
    """The INDEX of each NAME__INDEX, or None when any name has none."""
    found = [_INDEXED.fullmatch(name) for name in names]
    return [int(match.group(1)) for match in found if match] if all(found) else None


def _check_places(config: BackendConfig, kind: str, names: Sequence[str], places: Sequence[int], count: int) -> None:
    beyond = [name for name, place in zip(names, places, strict=True) if place >= count]
    if beyond or (kind == "input" and len(set(places)) < len(places)):
        raise LoadFailed(
            f"{config.model_name}: the indexes of the {kind}s do not fit the model",
            got="config.pbtxt " + ", ".join(names),
            expected=f"NAME__INDEX with each INDEX from 0 to {count - 1}" + (" once" if kind == "input" else ""),
        )
