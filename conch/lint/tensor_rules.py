"""Rules R14 to R18: tensors as the config describes them, and as clients will meet them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from tritonclient.grpc import model_config_pb2

from conch.lint.context import Context
from conch.lint.finding import Fault
from conch.lint.model import ModelFolder
from conch.lint.rules import rule
from conch.lint.torchscript_header import ForwardHeader, read_forward
from conch.model_config import ModelConfigMessage

_ANY = -1
_INDEXED = re.compile(r".*?__([0-9]+)")


def _tensors(config: ModelConfigMessage) -> Iterator[tuple[str, Any]]:
    """Every input and output, with its place."""
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            yield f"{kind}[{tensor.name}]", tensor


@rule("R14", "error", "dims and reshape have different element counts")
def reshape_counts(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A reshape gives the same elements another shape, so both must count the same, and so must the parts between -1s.

    Mend the one that is wrong: dims are what clients send, the reshape is what the model gets.
    """
    assert model.config is not None
    for place, tensor in _tensors(model.config):
        if not tensor.HasField("reshape"):
            continue
        dims, shape = list(tensor.dims), list(tensor.reshape.shape)
        if _runs(dims) != _runs(shape):
            yield Fault(
                "dims and reshape do not hold the same number of elements",
                got=f"dims {dims} {_count(dims)}, reshape {shape} {_count(shape)}",
                expected="equal counts, and as many -1",
                fix=f"reshape: {{ shape: {dims} }} or other dims",
                place=f"{place}.reshape",
            )


def _runs(dims: Sequence[int]) -> list[int]:
    """The element counts of the parts that -1s separate; nothing counts as one."""
    runs = [1]
    for size in dims:
        if size == _ANY:
            runs.append(1)
        else:
            runs[-1] *= size
    return runs


def _count(dims: Sequence[int]) -> str:
    fixed = prod(d for d in dims if d != _ANY)
    open_dims = sum(d == _ANY for d in dims)
    return f"({fixed} elements{f' and {open_dims} open' if open_dims else ''})"


@rule("R15", "error", "FORMAT_NCHW or FORMAT_NHWC without three dims")
def image_formats(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """An image format needs channels, height and width in dims, and nothing else; Triton refuses the model otherwise.

    The N is the batch dimension, which dims leave out. Write three dims, or leave format out: Triton does not
    rearrange anything by it.
    """
    assert model.config is not None
    formats = model_config_pb2.ModelInput.Format
    for tensor in model.config.input:
        # protobuf lets through numbers that the enum does not have
        if tensor.format in (formats.Value("FORMAT_NCHW"), formats.Value("FORMAT_NHWC")) and len(tensor.dims) != 3:
            name = formats.Name(tensor.format)
            order = "[channels, height, width]" if name == "FORMAT_NCHW" else "[height, width, channels]"
            yield Fault(
                f"{name} has {len(tensor.dims)} dims",
                got=f"dims {list(tensor.dims)}",
                expected=f"three: {order}",
                fix="dims: [3, 224, 224], say, or leave format out",
                place=f"input[{tensor.name}].format",
            )


@rule("R16", "note", "FP16 or BF16 tensors are not for JSON")
def half_floats(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """JSON requests cannot carry FP16 or BF16: the server answers 400. Clients must send binary data, or use gRPC.

    Say so where the model is described, or let the graph cast: FP32 outside, FP16 inside. Members of ensembles are left
    out, as no client asks them.
    """
    assert model.config is not None
    halves = {model_config_pb2.DataType.Value(name): name for name in ("TYPE_FP16", "TYPE_BF16")}
    found = [(place, halves[t.data_type]) for place, t in _tensors(model.config) if t.data_type in halves]
    if found and model.name not in context.members:
        yield Fault(
            "clients that send or ask for JSON get a 400",
            got=", ".join(f"{place} {name}" for place, name in found),
            expected="TYPE_FP32 for JSON clients",
            fix="send binary data (tritonclient does by default), or cast to FP32 in the graph",
            place=", ".join(place for place, _ in found),
        )


@rule("R17", "note", "clients send a batch of strings as [N, 1]")
def batched_strings(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """With batching, a string input of dims [1] has the shape [N, 1] in a request; many clients send [N] and get a 400.

    Say it where the model is described, with an example. Members of ensembles are left out, as no client asks them.
    """
    assert model.config is not None
    if model.config.max_batch_size <= 0 or model.name in context.members:
        return
    text = model_config_pb2.DataType.Value("TYPE_STRING")
    names = [t.name for t in model.config.input if t.data_type == text and list(t.dims) == [1]]
    if names:
        yield Fault(
            "a request carries these strings with the shape [N, 1], not [N]",
            got=", ".join(names),
            expected="a word about it in the model's description",
            fix=f'"inputs": [{{"name": "{names[0]}", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}}]',
            place=", ".join(f"input[{name}]" for name in names),
        )


@rule("R18", "warning", "names that TorchScript cannot be matched by")
def torchscript_names(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A TorchScript file keeps no tensor names, only the arguments of forward.

    Triton matches inputs by these, or by the INDEX of NAME__INDEX; outputs by NAME__INDEX alone. Other names are taken
    in the order in which config.pbtxt lists them: a change of order changes what the model computes.
    """
    assert model.config is not None
    config = model.config
    # PyTorch 2 and Python models, and the inputs of sequences, are matched by other means.
    if model.backend != "pytorch" or config.platform == "torch_aoti" or config.runtime:
        return
    if config.HasField("sequence_batching") or not model.model_file:
        return
    inputs, outputs = [t.name for t in config.input], [t.name for t in config.output]
    heads = [read_forward(version.path / model.model_file) for version in model.served]
    head = next((h for h in reversed(heads) if h is not None), None)
    yield from _input_names(inputs, head)
    yield from _output_names(outputs, head)


def _input_names(names: list[str], head: ForwardHeader | None) -> Iterator[Fault]:
    if not names or (head is not None and head.takes_dict):
        return
    arguments = [name for name, _ in head.arguments] if head is not None else []
    places = _indexes(names)
    shown = head.describe() if head is not None else "NAME__INDEX each"
    if head is not None and len(arguments) != len(names):
        yield Fault(
            "the model takes another number of inputs",
            got=f"{len(names)}: {', '.join(names)}",
            expected=f"{len(arguments)}: {shown}",
            fix="list an input for each argument of forward",
            place="input",
            severity="error",
        )
    elif places is not None and not set(names) <= set(arguments):
        if len(set(places)) < len(places) or max(places) >= len(names):
            yield _wrong_indexes("input", names, len(names), "error" if head is not None else None)
    elif not set(names) <= set(arguments) and places is None:
        due = arguments or [f"{name.split('__')[0]}__{index}" for index, name in enumerate(names)]
        # One alone is taken right; several may be arguments of a forward that cannot be read.
        in_doubt = len(names) == 1 or (head is None and not _has_index(names))
        yield Fault(
            "these inputs are taken in the order in which they are listed",
            got=", ".join(names),
            expected=f"{shown}, or NAME__INDEX each",
            fix="; ".join(f'{old} -> name: "{new}"' for old, new in zip(names, due, strict=True)),
            place="input",
            severity="note" if in_doubt else None,
        )


def _output_names(names: list[str], head: ForwardHeader | None) -> Iterator[Fault]:
    count = head.results if head is not None else None
    places = _indexes(names) if names else None
    if places is not None:
        if max(places) >= (count or len(names)):
            yield _wrong_indexes("output", names, count or len(names), "error" if count else None)
    elif len(names) > 1:
        yield Fault(
            "these outputs are taken in the order in which they are listed",
            got=", ".join(names),
            expected="NAME__INDEX each",
            fix="; ".join(f'{name} -> name: "{name.split("__")[0]}__{index}"' for index, name in enumerate(names)),
            place="output",
        )


def _wrong_indexes(kind: str, names: list[str], count: int, severity: Any) -> Fault:
    return Fault(
        f"the indexes of the {kind}s do not fit the model",
        got=", ".join(names),
        expected=f"an INDEX from 0 to {count - 1} each" + (" once" if kind == "input" else ""),
        fix="; ".join(f'{name} -> name: "{name.split("__")[0]}__{i}"' for i, name in enumerate(names)),
        place=kind,
        severity=severity,
    )


def _indexes(names: Sequence[str]) -> list[int] | None:
    """The INDEX of each NAME__INDEX, or None when one has none."""
    found = [_INDEXED.fullmatch(name) for name in names]
    return [int(match.group(1)) for match in found if match] if all(found) else None


def _has_index(names: Sequence[str]) -> bool:
    return any(_INDEXED.fullmatch(name) for name in names)
