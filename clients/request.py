"""What is asked of a server, built and checked before anything is sent. Pure: no I/O, no tritonclient.

An `Operation` names a method of tritonclient's InferenceServerClient (the four of them agree on the names) and its
arguments, so a transport has nothing to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.convert import to_array
from clients.shared_memory import Place, Region
from conch.errors import InvalidInput, SignatureError
from conch.tensor_spec import Array, ModelSignature, describe_tensors


@dataclass(frozen=True)
class Tensor:
    """One named input, of the model's data type and with the whole shape."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class InferRequest:
    """A checked inference request. ``outputs`` empty asks for all; ``version`` empty for the latest.

    ``input_places`` and ``output_places`` are the tensors that go through shared memory, all in one region.
    """

    model: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    input_places: Mapping[str, Place] = field(default_factory=dict)
    output_places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def region(self) -> Region | None:
        """The shared memory that the request uses."""
        places = [*self.input_places.values(), *self.output_places.values()]
        return places[0].region if places else None

    @property
    def payload_bytes(self) -> int:
        """The size of the tensors on the wire: strings carry a length of 4 bytes each."""
        return sum(tensor_bytes(t) for t in self.inputs)


@dataclass(frozen=True)
class Operation:
    """A call of one tritonclient method, the same for HTTP and gRPC.

    ``inference`` is set for ``infer`` alone. ``retry`` says that a second try does no harm.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inference: InferRequest | None = None
    model: str = ""
    retry: bool = True


def tensor_bytes(tensor: Tensor) -> int:
    """How many bytes a tensor takes on the wire, and in shared memory."""
    if tensor.datatype == "BYTES":
        return sum(4 + len(item) for item in tensor.array.ravel())
    return tensor.array.size * 2 if tensor.datatype == "BF16" else tensor.array.nbytes


@dataclass(frozen=True)
class Question:
    """What a user asks of a model, not yet checked. ``inputs`` and ``tensors`` are as `name_inputs` takes them."""

    model: str
    inputs: Any = None
    tensors: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    outputs: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: str,
        inputs: Any,
        tensors: Mapping[str, Any],
        version: int | str | None,
        outputs: Sequence[str] | None,
    ) -> Question:
        """The question in a client method's arguments."""
        listed = (outputs,) if isinstance(outputs, str) else tuple(outputs or ())
        return cls(model, inputs, tensors, version_name(version), listed)


def version_name(version: int | str | None) -> str:
    """A version as Triton takes it; empty for the latest. Raises: InvalidInput unless it is a number above 0."""
    text = "" if version is None else str(version)
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InvalidInput("that is no model version", got=version, expected="a whole number above 0, or None")
    return text


def build_request(question: Question, signature: ModelSignature, *, where: str = "") -> InferRequest:
    """The request that a user's values make. Raises: InvalidInput, with what came and what the model takes."""
    try:
        named = name_inputs(signature, question.inputs, question.tensors)
        arrays = {n: to_array(signature.input(n), v, batched=signature.batched) for n, v in named.items()}
        _check_batch(signature, arrays)
        signature.check_inputs(arrays)
        for output in question.outputs:
            signature.output(output)
    except (SignatureError, InvalidInput) as error:
        place = where or f"model {question.model}"
        fix = error.fix
        raise InvalidInput(error.what, where=place, got=error.got, expected=error.expected, fix=fix) from error
    checked = tuple(Tensor(s.name, s.datatype, arrays[s.name]) for s in signature.inputs if s.name in arrays)
    return InferRequest(question.model, question.version, checked, question.outputs)


def name_inputs(signature: ModelSignature, inputs: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The values by input name, from a mapping, a DataFrame, or the one value of a model with one required input.

    ``inputs`` may be a function from the model's signature to one of these.
    A DataFrame's columns are inputs of their names, each one value a row. When the model's only required input is none
    of the columns, the columns in their order are its items: ``features`` [n].
    Raises: InvalidInput.
    """
    if callable(inputs):
        inputs = inputs(signature)
    if inputs is None:
        return dict(tensors)
    required = [s for s in signature.inputs if not s.optional] or list(signature.inputs)
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        columns = [str(c) for c in inputs.columns]
        known = {s.name for s in signature.inputs}
        if len(required) == 1 and not known & set(columns):
            named: dict[str, Any] = {required[0].name: inputs.to_numpy()}
        else:
            named = {column: inputs[key] for column, key in zip(columns, inputs.columns, strict=True)}
    elif isinstance(inputs, Mapping):
        named = dict(inputs)
    elif len(required) == 1:
        named = {required[0].name: inputs}
    else:
        raise InvalidInput(
            "which input a value is for must be said",
            got=type(inputs).__name__,
            expected=describe_tensors(signature.inputs, batched=signature.batched),
            fix="pass a mapping of names to values, or keywords",
        )
    twice = sorted(set(named) & set(tensors))
    if twice:
        raise InvalidInput(f"input {', '.join(twice)} is given twice", fix="give it in the mapping or by keyword")
    return named | dict(tensors)


def split(inputs: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Cut inputs that hold one value a row into requests of at most ``size`` rows, in order.

    Raises: InvalidInput when the inputs differ in length.
    """
    columns = {name: value if hasattr(value, "__getitem__") else list(value) for name, value in inputs.items()}
    lengths = {name: len(value) for name, value in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput("inputs differ in length", got=lengths, expected="one value a row in each")
    # pandas slices by position only through iloc.
    sliced = {name: getattr(value, "iloc", value) for name, value in columns.items()}
    for start in range(0, next(iter(lengths.values()), 0), max(size, 1)):
        yield {name: value[start : start + max(size, 1)] for name, value in sliced.items()}


def _check_batch(signature: ModelSignature, arrays: Mapping[str, Array]) -> None:
    """Say what to do about a batch that the server would refuse, before the general check says that it is too large."""
    sizes = {a.shape[0] for a in arrays.values()} if signature.batched else set()
    if len(sizes) == 1 and max(sizes) > signature.max_batch_size:
        raise InvalidInput(
            "the request holds more items than the model takes at once",
            got=f"a batch of {max(sizes)}",
            expected=f"at most {signature.max_batch_size} (max_batch_size)",
            fix=f"client.infer_many(model, split(inputs, {signature.max_batch_size})), with split from clients",
        )
