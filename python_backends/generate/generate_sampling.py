"""`sampling_parameters`: the JSON of a request, read and checked. The names and their meaning are those of vLLM.

Source: https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html
"""

from __future__ import annotations

import ctypes
import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from generate_refusal import Refused, invalid
from generate_schema import check_regex, check_schema

# Below this vLLM takes the temperature for 0, which is the most likely token every time.
GREEDY_BELOW = 1e-5
# The engine holds real numbers in 32 bits, and takes whole ones of 64.
LARGEST_REAL = 3.4028234663852886e38
LARGEST_TOKEN = 2**31 - 1
# What a text is held to when JSON is asked for without a schema.
ANY_JSON = '{"type": "object"}'


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop.

    ``max_tokens`` None is as many as the context has room for. ``top_k`` 0 is all tokens. ``seed`` None is another
    seed every time. ``logprobs`` says whether the chosen tokens' log-probabilities are needed.
    """

    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    seed: int | None = None
    logprobs: bool = False
    json_schema: str | None = None
    regex: str | None = None
    lora: str | None = None

    @property
    def held(self) -> str | None:
        """The schema or regular expression that the text is held to."""
        return self.json_schema or self.regex

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken every time."""
        return self.temperature < GREEDY_BELOW


def read_sampling(document: str | bytes) -> Sampling:
    """Read the JSON object of a request. Raises: Refused."""
    try:
        given = json.loads(document)
    except ValueError as error:
        raise Refused(f"invalid: sampling_parameters: {error}, expected a JSON object") from error
    if not isinstance(given, dict):
        raise invalid("sampling_parameters", given, "a JSON object")
    return sampling_of(given)


def sampling_of(given: Mapping[str, Any]) -> Sampling:
    """Check parameters by name; a null is left out. Raises: Refused."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        reader = _READERS.get(name)
        if reader is None:
            close = difflib.get_close_matches(name, _READERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise invalid(f"sampling parameter {name}", value, f"one of {', '.join(sorted(_READERS))}{hint}")
        if value is not None:
            fields.update(reader(name, value))
        elif name == "max_tokens":
            fields["max_tokens"] = None
    sampling = Sampling(**fields)
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise invalid("min_tokens", sampling.min_tokens, f"at most max_tokens, which is {sampling.max_tokens}")
    if sampling.json_schema is not None and sampling.regex is not None:
        raise invalid("sampling_parameters", sorted(given), "a schema or a regular expression, one of them")
    return sampling


def _whole(low: int, high: float = math.inf) -> Callable[[str, object], dict[str, Any]]:
    def read(name: str, value: object) -> dict[str, Any]:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            limit = f" to {high:g}" if high != math.inf else " or more"
            raise invalid(name, value, f"a whole number, {low}{limit}")
        return {name: value}

    return read


def _real(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str, object], dict[str, Any]]:
    def read(name: str, value: object) -> dict[str, Any]:
        number = _single(value)
        if not low <= number <= high or (above and number == low):
            limit = f" to {high:g}" if high != math.inf else " or more"
            raise invalid(name, value, f"a number, {'more than ' if above else ''}{low:g}{limit}")
        return {name: number}

    return read


def _single(value: object) -> float:
    """A number as the engine holds it, where tiny ones are 0; NaN for what is none, or is beyond."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not -LARGEST_REAL <= value <= LARGEST_REAL:  # type: ignore[operator]
        return math.nan
    return ctypes.c_float(value).value  # type: ignore[arg-type]


def _flag(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise invalid(name, value, "true or false")
    return {name: value}


def _top_k(name: str, value: object) -> dict[str, Any]:
    # More than there are tokens is all of them.
    return {name: min(max(_whole(-1)(name, value)[name], 0), LARGEST_TOKEN)}


def _one(name: str, value: object) -> dict[str, Any]:
    if value != 1 or isinstance(value, bool):
        raise invalid(name, value, "1: one request makes one text; ask as often as texts are wanted")
    return {}


def _logprobs(name: str, value: object) -> dict[str, Any]:
    if value not in (0, 1):  # a flag in JSON is as good
        raise invalid(name, value, "0 or 1: this engine tells the probability of the chosen token alone")
    return {name: value is not False}


def _seed(name: str, value: object) -> dict[str, Any]:
    # The engine's generator takes 32 bits.
    return {name: _whole(-(2**63), 2**64)(name, value)[name] & 0xFFFFFFFF}


def _stop(name: str, value: object) -> dict[str, Any]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise invalid(name, value, "a string that is not empty, or a list of such")
    return {name: tuple(texts)}


def _stop_token_ids(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token <= LARGEST_TOKEN for token in value):
        raise invalid(name, value, "a list of token ids")
    return {name: frozenset(value)}


def _text(field: str) -> Callable[[str, object], dict[str, Any]]:
    def read(name: str, value: object) -> dict[str, Any]:
        if not isinstance(value, str) or not value:
            raise invalid(name, value, "a string that is not empty")
        return {field: value}

    return read


def _regex(name: str, value: object) -> dict[str, Any]:
    given = _text("regex")(name, value)
    check_regex(name, given["regex"])
    return given


def _schema(name: str, value: object) -> dict[str, Any]:
    """A JSON schema, as an object or as its text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Refused(f"invalid: {name}: {error}, expected a JSON schema") from error
    if not isinstance(value, dict):
        raise invalid(name, value, "a JSON schema")
    check_schema(name, value)
    return {"json_schema": json.dumps(value)}


def _response_format(name: str, value: object) -> dict[str, Any]:
    """OpenAI's shape: {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": {...}}}."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": ANY_JSON}
    if isinstance(value, dict) and kind == "json_schema":
        held = value.get("json_schema")
        return _schema(name, held.get("schema") if isinstance(held, dict) else held)
    raise invalid(name, value, '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", ...}')


_READERS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "best_of": _one,
    "frequency_penalty": _real(-2, 2),
    "guided_json": _schema,
    "guided_regex": _regex,
    "ignore_eos": _flag,
    "include_stop_str_in_output": _flag,
    "json_schema": _schema,
    "logprobs": _logprobs,
    "lora": _text("lora"),
    "lora_name": _text("lora"),
    "max_tokens": _whole(1),
    "min_p": _real(0, 1),
    "min_tokens": _whole(0),
    "n": _one,
    "presence_penalty": _real(-2, 2),
    "repetition_penalty": _real(0, above=True),
    "response_format": _response_format,
    "seed": _seed,
    "skip_special_tokens": _flag,
    "stop": _stop,
    "stop_token_ids": _stop_token_ids,
    "temperature": _real(0),
    "top_k": _top_k,
    "top_p": _real(0, 1, above=True),
}
