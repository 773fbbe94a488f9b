"""Triton model: `text` STRING [1] (and `text_pair`) in, token ids out. The work is done in text_encoding.py.

All texts of all requests that Triton merged are encoded in one call, and padded for each request alone.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Triton runs instances side by side: threads of the tokenizer's own would take the cores from the model behind it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import triton_python_backend_utils as pb_utils
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


class TritonPythonModel:
    """Adapts tensors; one a model instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read parameters and tokenizer.json. Raises: ValueError, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        parameters = read_parameters(config)
        self._outputs = read_outputs(config, parameters)
        self._pairs = read_flag(parameters, "pairs")
        self._batched = config["max_batch_size"] > 0
        options = EncodingOptions(
            max_length=read_int(parameters, "max_length", 1),
            pad_to_multiple_of=read_int(parameters, "pad_to_multiple_of", 1) or 1,
            pad_id=read_int(parameters, "pad_id", 0),
            pad_type_id=read_int(parameters, "pad_type_id", 0),
            padding_side=parameters.get("padding_side"),
            truncation_side=parameters.get("truncation_side"),
        )
        self._encoder = TextEncoder(folder / "tokenizer.json", options, self._outputs)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request that cannot be read gets an error of its own."""
        texts: list[Text] = []
        spans: list[tuple[int, int] | TextError] = []  # where a request's texts lie in `texts`, or why it has none
        for request in requests:
            try:
                own = self._texts_of(request)
            except TextError as error:
                spans.append(error)
            else:
                spans.append((len(texts), len(texts) + len(own)))
                texts.extend(own)
        try:
            encodings = self._encoder.encode(texts) if texts else []
        except TextError:
            return [self._respond_alone(r, s, texts) for r, s in zip(requests, spans, strict=True)]
        return [
            refuse(span) if isinstance(span, TextError) else self._respond(request, encodings[span[0] : span[1]])
            for request, span in zip(requests, spans, strict=True)
        ]

    def _texts_of(self, request: Any) -> list[Text]:
        texts = decode_texts(read_input(request, "text"), "text")
        if not self._pairs:
            return list(texts)
        return pair_up(texts, decode_texts(read_input(request, "text_pair"), "text_pair"))

    def _respond(self, request: Any, encodings: list[Any]) -> Any:
        requested = request.requested_output_names()
        arrays = self._encoder.rectangle(encodings, [name for name in self._outputs if name in requested])
        tensors = [pb_utils.Tensor(name, a if self._batched else a[0]) for name, a in arrays.items()]
        return pb_utils.InferenceResponse(tensors)

    def _respond_alone(self, request: Any, span: tuple[int, int] | TextError, texts: list[Text]) -> Any:
        """One text spoils the batch for the tokenizer: find out whose it is."""
        if isinstance(span, TextError):
            return refuse(span)
        try:
            return self._respond(request, self._encoder.encode(texts[span[0] : span[1]]))
        except TextError as error:
            return refuse(error)


def refuse(error: TextError) -> Any:
    """The response of a request that is wrong."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))


def read_input(request: Any, name: str) -> Any:
    """An input's array. Raises: TextError when the request does not have it."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise TextError(f"input {name}: got nothing, expected STRING [batch, 1]")
    return tensor.as_numpy()


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of config.pbtxt; upper-case ones are Triton's own. Raises: ValueError for one we do not have."""
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    return given


def read_outputs(config: Mapping[str, Any], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """The declared outputs. Raises: ValueError when they are not ours, or the parameter `outputs` lists others."""
    declared = tuple(output["name"] for output in config["output"])
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
