"""A request's tensors, as Triton's vLLM backend names them, read and checked. Knows nothing of Triton.

Source: https://github.com/triton-inference-server/vllm_backend/blob/main/src/utils/request.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from generate_refusal import Refused, invalid
from generate_sampling import Sampling, read_sampling, sampling_of

RETURNS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)


@dataclass(frozen=True)
class Ask:
    """What one request wants. ``chat`` is JSON that the model's template makes a prompt of, in place of ``text``.

    ``returns`` are the additional outputs, by the names of RETURNS without `return_`.
    """

    text: str
    chat: str | None
    stream: bool
    prepend_input: bool
    sampling: Sampling
    returns: frozenset[str]


def read_ask(tensors: Mapping[str, npt.NDArray[Any]], request_parameters: str) -> Ask:
    """Read a request's arrays; without `sampling_parameters`, its own parameters (JSON) take their place.

    Raises: Refused.
    """
    text, chat = _text(tensors, "text_input"), _text(tensors, "chat")
    if text is None and chat is None:
        raise invalid("text_input", None, "the prompt as a STRING [1]")
    if text and chat:
        raise invalid("text_input", text, "an empty text beside a chat")
    stream = _flag(tensors, "stream") or False
    exclude = _flag(tensors, "exclude_input_in_output")
    if stream and exclude is False:
        raise invalid("exclude_input_in_output", False, "true when streaming")
    sampling = _text(tensors, "sampling_parameters")
    return Ask(
        text=text or "",
        chat=chat,
        stream=stream,
        # A prompt comes back before the text unless told otherwise, as vLLM's backend does it; a chat never does.
        prepend_input=not (exclude or stream or chat is not None),
        sampling=read_sampling(sampling) if sampling else _from_request(request_parameters),
        returns=frozenset(name.removeprefix("return_") for name in RETURNS if _flag(tensors, name)),
    )


def _from_request(parameters: str) -> Sampling:
    """Sampling parameters given as parameters of the request, beside those that are Triton's own."""
    given = json.loads(parameters or "{}")
    return sampling_of({name: value for name, value in given.items() if not name.startswith(("triton_", "sequence_"))})


def _text(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> str | None:
    value = _single(tensors, name)
    if value is None:
        return None
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise Refused(f"invalid: {name}: {error}, expected UTF-8") from error


def _flag(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> bool | None:
    value = _single(tensors, name)
    return None if value is None else bool(value)


def _single(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> Any:
    array = tensors.get(name)
    if array is None:
        return None
    if array.size != 1:
        raise invalid(name, f"shape {list(array.shape)}", "shape [1]")
    return array.reshape(-1)[0]
