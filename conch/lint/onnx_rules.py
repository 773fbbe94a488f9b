"""Rules R10 to R13: a config's tensors, held against those of the ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2

from conch.errors import SignatureError, nearest
from conch.lint.config_text import field_names
from conch.lint.context import Context
from conch.lint.finding import EditConfig, Fault
from conch.lint.model import ModelFolder, VersionFolder
from conch.lint.onnx_header import OnnxHeader, OnnxTensor
from conch.lint.rules import rule
from conch.model_config import ModelConfigMessage
from conch.tensor_spec import from_onnx_type

_ANY = -1


@dataclass(frozen=True)
class _Pair:
    """A tensor of the config and the one of the same name in the model; ``kind`` is "input" or "output"."""

    kind: str
    config: Any
    model: OnnxTensor
    version: VersionFolder

    @property
    def place(self) -> str:
        return f"{self.kind}[{self.config.name}]"

    @property
    def written(self) -> tuple[int, ...]:
        """The dims that reach the model: those of the reshape where there is one."""
        return tuple(self.config.reshape.shape if self.config.HasField("reshape") else self.config.dims)


def _type_name(tensor: Any) -> str:
    # protobuf lets through numbers that the enum does not have
    known = model_config_pb2.DataType.DESCRIPTOR.values_by_number.get(tensor.data_type)
    return known.name if known else str(tensor.data_type)


def _model_type(tensor: OnnxTensor) -> str:
    """A tensor's type by its name in config.pbtxt; "" where Triton's onnxruntime backend has none (BF16 among them)."""
    try:
        due = from_onnx_type(tensor.elem_type) if tensor.kind == "tensor" else None
    except SignatureError:
        return ""
    return due.config if due is not None and due.wire != "BF16" else ""


def _sizes(tensor: OnnxTensor) -> tuple[int, ...] | None:
    """A model tensor's sizes with -1 for those that are open; None when the rank is not known."""
    if tensor.dims is None:
        return None
    return tuple(d if isinstance(d, int) and d >= 0 else _ANY for d in tensor.dims)


def _describe(tensor: OnnxTensor) -> str:
    dims = (
        "any shape" if tensor.dims is None else str([("?" if d is None else d) for d in tensor.dims]).replace("'", "")
    )
    return f"{tensor.name} {_model_type(tensor) or tensor.kind} {dims}"


def _pairs(model: ModelFolder) -> Iterator[_Pair]:
    """Tensors that config and model both have, in every version that is served and can be read."""
    for version, header in model.headers():
        for kind, written, there in _sides(model.config, header):
            by_name = {t.name: t for t in there}
            for tensor in written:
                if tensor.name in by_name:
                    yield _Pair(kind, tensor, by_name[tensor.name], version)


def _sides(config: ModelConfigMessage, header: OnnxHeader) -> Iterator[tuple[str, Sequence[Any], Sequence[OnnxTensor]]]:
    yield "input", config.input, (*header.inputs, *header.overridable)
    yield "output", config.output, header.outputs


def _is_reshaped_by_triton(config: ModelConfigMessage, pair: _Pair) -> bool:
    """Whether Triton itself gives the tensor another shape: ragged batches, and outputs that it scatters."""
    if pair.kind == "input":
        return bool(pair.config.allow_ragged_batch)
    return any(pair.config.name in b.target_name for b in config.batch_output)


def _once(faults: Iterator[Fault]) -> Iterator[Fault]:
    """One fault a place: versions that share a config share its faults."""
    seen: set[str] = set()
    for fault in faults:
        if fault.place not in seen:
            seen.add(fault.place)
            yield fault


def _set_dims(pair: _Pair, dims: Sequence[int]) -> EditConfig:
    """Write dims; none at all are [1] with a reshape to [], as dims must not be empty."""
    name, kind = pair.config.name, pair.kind

    def edit(config: ModelConfigMessage) -> None:
        for tensor in getattr(config, kind):
            if tensor.name == name:
                tensor.dims[:] = dims or [1]
                if not dims:
                    tensor.reshape.SetInParent()

    return EditConfig(f"{pair.place}.{_dims_text(dims)}", edit)


def _dims_text(dims: Sequence[int]) -> str:
    return f"dims: {list(dims)}" if dims else "dims: [1] reshape: { shape: [] }"


@rule("R10", "error", "the batch dimension is counted twice", fixable=True)
def batch_counted_twice(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """With max_batch_size over 0, Triton puts the batch dimension before the dims that config.pbtxt lists.

    Dims as many as the model's own rank therefore stand for one dimension too many, and the model does not load. Leave
    the first one out.
    """
    assert model.config is not None
    if model.config.max_batch_size > 0:
        yield from _once(_counted_twice(model, model.config))


def _counted_twice(model: ModelFolder, config: ModelConfigMessage) -> Iterator[Fault]:
    for pair in _pairs(model):
        sizes = _sizes(pair.model)
        if not sizes or sizes[0] != _ANY or len(pair.written) != len(sizes) or _is_reshaped_by_triton(config, pair):
            continue
        due = pair.written[1:]
        if pair.kind == "output" or not _fits(sizes[1:], due):
            due = sizes[1:]
        yield Fault(
            f"{pair.kind} {pair.config.name} has {len(sizes)} dims, and max_batch_size adds another",
            got=f"dims {list(pair.written)}, with the batch {[_ANY, *pair.written]}",
            expected=f"{list(sizes[1:])}, as the model has {_describe(pair.model)}",
            fix=_dims_text(due),
            place=f"{pair.place}.dims",
            mend=None if pair.config.HasField("reshape") else _set_dims(pair, due),
        )


def _fits(model: Sequence[int], written: Sequence[int]) -> bool:
    return len(model) == len(written) and all(m in (_ANY, w) for m, w in zip(model, written, strict=True))


@rule("R11", "error", "the model's batch dimension is fixed")
def batch_frozen(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """With max_batch_size over 0, the first dimension of each ONNX input and output must be open.

    The export froze it at the size of its example. Export again with a dynamic batch dimension, or serve the model
    without batching: max_batch_size: 0, and the whole shape in dims.
    """
    assert model.config is not None
    batch = model.config.max_batch_size
    frozen = [p for p in _pairs(model) if (sizes := _sizes(p.model)) is not None and sizes[:1] != (_ANY,)]
    if batch <= 0 or not frozen:
        return
    yield Fault(
        f"the model does not batch, and max_batch_size is {batch}",
        got="; ".join(f"{p.kind} {_describe(p.model)}" for p in frozen),
        expected="an open first dimension in every input and output",
        fix=f"export it again with a dynamic batch dimension, or max_batch_size: 0 and "
        f"{frozen[0].config.name} dims: {list(_sizes(frozen[0].model) or [1])}",
        place="max_batch_size",
    )


@rule("R12", "warning", "the model could batch, and max_batch_size does not say")
def batch_unsaid(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Where a config leaves max_batch_size and tensors out, Triton completes it: with 4, when the model can batch.

    Then clients must send a batch dimension that config.pbtxt does not show. Write max_batch_size, 0 for none, and list
    all inputs and outputs: Triton completes nothing then.
    """
    assert model.config is not None
    config = model.config
    for version, header in list(model.headers())[-1:]:
        tensors = [*header.inputs, *header.outputs]
        open_first = [(_sizes(t) or ())[:1] == (_ANY,) for t in tensors]
        if config.max_batch_size != 0 or not tensors or not all(open_first):
            return
        listed = bool(config.input and config.output)
        said = "max_batch_size" in field_names(model.config_text)
        yield Fault(
            "Triton completes max_batch_size with 4"
            if not listed
            else "the model could batch, and is served without"
            if said
            else "nothing says whether the model is to batch",
            got=("max_batch_size: 0" if said else "no max_batch_size") + ("" if listed else ", and not all tensors"),
            expected=f"a number: the model has {_describe(tensors[0])} in version {version.name}",
            fix="max_batch_size: 8 and dims without the first one, or max_batch_size: 0 with all inputs and outputs",
            place="max_batch_size",
            # Said and complete, it is what the author wants, and only worth knowing; so is leaving all of it to Triton,
            # which its documentation describes.
            severity="note" if (listed and said) or not (said or config.input or config.output) else None,
        )


@rule("R13", "error", "a tensor that the model does not have", fixable=True)
def tensors_exist(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Names, types and dims in config.pbtxt must be the model's own, or it does not load.

    Take the names from the list that is shown. A name of the model that is near, and not used otherwise, is put in
    by --fix.
    """
    assert model.config is not None
    yield from _once(_not_the_models(model, model.config))


def _not_the_models(model: ModelFolder, config: ModelConfigMessage) -> Iterator[Fault]:
    for version, header in model.headers():
        for kind, written, there in _sides(config, header):
            yield from _names(model, version, kind, written, there, {t.name for t in header.overridable})
    for pair in _pairs(model):
        yield from _types(pair)
        if not _is_reshaped_by_triton(config, pair):
            yield from _dims(pair, config.max_batch_size)


def _names(
    model: ModelFolder,
    version: VersionFolder,
    kind: str,
    written: Sequence[Any],
    there: Sequence[OnnxTensor],
    with_default: set[str],
) -> Iterator[Fault]:
    used = {t.name for t in written}
    free = [t.name for t in there if t.name not in used | _fed_by_triton(model.config)]
    both = f"model {version.name}/{model.model_file}: {'; '.join(map(_describe, there)) or 'none'}"
    for tensor in written:
        if tensor.name in {t.name for t in there} or tensor.name in _fed_by_triton(model.config):
            continue
        near = nearest(tensor.name, free) or (free[0] if len(free) == 1 == len(written) == len(there) else None)
        if near:
            free.remove(near)
        yield Fault(
            f"the model has no {kind} {tensor.name}",
            got=f"config.pbtxt: {', '.join(sorted(used))}",
            expected=both,
            fix=f'name: "{near}"' if near else f"use one of the model's {kind}s",
            place=f"{kind}[{tensor.name}].name",
            mend=_set_name(kind, tensor.name, near) if near else None,
        )
    # Without any, Triton completes the list; outputs may be left out.
    for tensor in there if kind == "input" and written else ():
        if tensor.name not in free or tensor.name in with_default:
            continue
        yield Fault(
            f"the model needs an input {tensor.name}, and config.pbtxt does not name it",
            got=f"config.pbtxt: {', '.join(sorted(used))}",
            expected=both,
            fix=_as_text(tensor, batched=model.config is not None and model.config.max_batch_size > 0),
            place=f"input[{tensor.name}]",
        )


def _fed_by_triton(config: ModelConfigMessage) -> set[str]:
    """Tensors that Triton feeds or keeps itself: sequence controls and states, and what it knows of a batch."""
    batching = config.sequence_batching
    controls = {c.name for c in batching.control_input}
    states = {name for s in batching.state for name in (s.input_name, s.output_name)}
    return controls | states | {name for b in config.batch_input for name in b.target_name}


def _as_text(tensor: OnnxTensor, *, batched: bool) -> str:
    sizes = list(_sizes(tensor) or ())[1 if batched else 0 :]
    return f'input {{ name: "{tensor.name}" data_type: {_model_type(tensor)} dims: {sizes or [1]} }}'


def _set_name(kind: str, name: str, due: str) -> EditConfig:
    def edit(config: ModelConfigMessage) -> None:
        for tensor in getattr(config, kind):
            if tensor.name == name:
                tensor.name = due

    return EditConfig(f"{kind}[{name}].name: {due}", edit)


def _types(pair: _Pair) -> Iterator[Fault]:
    due, got = _model_type(pair.model), _type_name(pair.config)
    if got == due:
        return
    name, kind = pair.config.name, pair.kind

    def edit(config: ModelConfigMessage) -> None:
        for tensor in getattr(config, kind):
            if tensor.name == name:
                tensor.data_type = model_config_pb2.DataType.Value(due)

    yield Fault(
        f"{kind} {name} has another type in the model" if due else f"{kind} {name} is nothing that Triton can carry",
        got=got,
        expected=due or f"a tensor of a Triton type; the model has {_describe(pair.model)}",
        fix=f"data_type: {due}" if due else "export the model so that it is a tensor of one of Triton's types",
        place=f"{pair.place}.data_type",
        mend=EditConfig(f"{pair.place}.data_type: {due}", edit) if due else None,
    )


def _dims(pair: _Pair, batch: int) -> Iterator[Fault]:
    """Dims that are not the model's, other than by the batch dimension (R10, R11)."""
    sizes = _sizes(pair.model)
    if sizes is None:
        return
    if batch > 0:
        if sizes[:1] != (_ANY,) or len(pair.written) == len(sizes):
            return  # R11, R10
        sizes = sizes[1:]
    if not sizes and batch <= 0 and all(d == 1 for d in pair.written):
        return  # a scalar
    if _fits(sizes, pair.written) and (pair.kind == "input" or list(sizes) == list(pair.written)):
        return
    due = sizes if batch > 0 else sizes or (1,)
    yield Fault(
        f"{pair.kind} {pair.config.name} has other dims in the model",
        got=f"dims {list(pair.written)}" + (" behind the batch" if batch > 0 else ""),
        expected=f"{list(sizes)}, as the model has {_describe(pair.model)}",
        fix=_dims_text(due),
        place=f"{pair.place}.dims",
        mend=None if pair.config.HasField("reshape") else _set_dims(pair, due),
    )
