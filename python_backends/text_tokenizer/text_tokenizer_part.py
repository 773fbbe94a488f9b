"""`text` STRING [1] (and `text_pair`) in, token ids out. The work is done in text_encoding.py.

All texts of all requests that Triton merged are encoded in one call, and padded for each request alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

# Triton runs instances side by side: threads of the tokenizer's own would take the cores from the model behind it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pipeline_part import Answer, Array, Ask, PartSettings, Refusal, check_parameters
from text_encoding import OUTPUTS, EncodingOptions, Text, TextEncoder, TextError, decode_texts, pair_up

PARAMETERS = (
    "max_length",
    "outputs",
    "pad_id",
    "pad_to_multiple_of",
    "pad_type_id",
    "padding_side",
    "pairs",
    "truncation_side",
)

# Where a request's texts lie among all, or why it has none.
Span = tuple[int, int] | Refusal


class Part:
    """Encodes the texts of requests."""

    def __init__(self, settings: PartSettings) -> None:
        """Read parameters and tokenizer.json. Raises: ValueError."""
        parameters = settings.parameters
        check_parameters(parameters, PARAMETERS)
        self._outputs = read_outputs(tuple(settings.outputs), parameters)
        self._pairs = read_flag(parameters, "pairs")
        options = EncodingOptions(
            max_length=read_int(parameters, "max_length", 1),
            pad_to_multiple_of=read_int(parameters, "pad_to_multiple_of", 1) or 1,
            pad_id=read_int(parameters, "pad_id", 0),
            pad_type_id=read_int(parameters, "pad_type_id", 0),
            padding_side=parameters.get("padding_side"),
            truncation_side=parameters.get("truncation_side"),
        )
        self._encoder = TextEncoder(settings.folder / "tokenizer.json", options, self._outputs)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one whose texts cannot be read is refused."""
        texts: list[Text] = []
        spans: list[Span] = []
        for ask in asks:
            try:
                own = self._texts_of(ask)
            except TextError as error:
                spans.append(Refusal(str(error)))
            else:
                spans.append((len(texts), len(texts) + len(own)))
                texts.extend(own)
        try:
            encodings = self._encoder.encode(texts) if texts else []
        except TextError:
            return [self._answer_alone(ask, span, texts) for ask, span in zip(asks, spans, strict=True)]
        return [
            span if isinstance(span, Refusal) else self._rectangle(ask, encodings[span[0] : span[1]])
            for ask, span in zip(asks, spans, strict=True)
        ]

    def _texts_of(self, ask: Ask) -> list[Text]:
        texts = decode_texts(read_input(ask, "text"), "text")
        if not self._pairs:
            return list(texts)
        return pair_up(texts, decode_texts(read_input(ask, "text_pair"), "text_pair"))

    def _rectangle(self, ask: Ask, encodings: Sequence[object]) -> dict[str, Array]:
        return self._encoder.rectangle(encodings, [name for name in self._outputs if name in ask.wanted])

    def _answer_alone(self, ask: Ask, span: Span, texts: list[Text]) -> Answer:
        """One text spoils the batch for the tokenizer: find out whose it is."""
        if isinstance(span, Refusal):
            return span
        try:
            return self._rectangle(ask, self._encoder.encode(texts[span[0] : span[1]]))
        except TextError as error:
            return Refusal(str(error))


def read_input(ask: Ask, name: str) -> Array:
    """An input's array. Raises: TextError when the request does not have it."""
    array = ask.tensors.get(name)
    if array is None:
        raise TextError(f"input {name}: got nothing, expected STRING [batch, 1]")
    return array


def read_outputs(declared: tuple[str, ...], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """The declared outputs. Raises: ValueError when they are not ours, or the parameter `outputs` lists others."""
    for name in declared:
        if name not in OUTPUTS:
            raise ValueError(f"output {name}: got an unknown name, expected one of {', '.join(OUTPUTS)}")
    listed = [name.strip() for name in parameters.get("outputs", ",".join(declared)).split(",")]
    if set(listed) != set(declared):
        raise ValueError(f"parameter outputs: got {', '.join(listed)}, expected the outputs of the config: {declared}")
    return declared


def read_flag(parameters: Mapping[str, str], name: str) -> bool:
    """A parameter that is true or false; absent is false. Raises: ValueError for anything else."""
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        raise ValueError(f"parameter {name}: got {value!r}, expected true or false")
    return value == "true"


def read_int(parameters: Mapping[str, str], name: str, lowest: int) -> int | None:
    """A whole number, or None when the parameter is absent. Raises: ValueError."""
    if name not in parameters:
        return None
    value = parameters[name]
    if not value.isdecimal() or int(value) < lowest:
        raise ValueError(f"parameter {name}: got {value!r}, expected a whole number of at least {lowest}")
    return int(value)
