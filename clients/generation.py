"""Generated text: what may be asked for, the pieces in which it comes, and the whole. Pure.

The tensors are those of Triton's vLLM backend, so that one call asks models of both engines; ours also take a chat and
render it with their own template.

Source: https://github.com/triton-inference-server/vllm_backend/blob/main/docs/additional_outputs.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from conch.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Sampling(TypedDict, total=False):
    """How tokens are chosen, and when to stop: vLLM's names and meanings. What is left out, or None, the model decides.

    ``stop`` ends the text before any of these strings. ``logprobs`` asks for each token's log-probability, and for so
    many alternatives to it (0 for none). ``json_schema`` holds the text to a schema. ``lora`` names an adapter of the
    model. ``extra`` are parameters that only the model's engine knows, by its own names.

    Source: https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html
    """

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    seed: int | None
    logprobs: int | None
    json_schema: Mapping[str, Any] | None
    lora: str | None
    extra: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token, and the natural logarithm of its probability.

    ``top`` are the most likely tokens at its place, in their order, when alternatives were asked for: the token itself
    is among them when it is one of these.
    """

    token: str
    logprob: float
    token_id: int
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What came since the piece before: whole characters, often one token's.

    ``finish_reason`` is None until the last piece: "stop" (the model, or a stop string, ended it), "length" or
    "cancelled". The counts are of all that came so far, None where the model does not tell. ``logprobs`` are those of
    this piece's tokens, None unless asked for. ``model`` and ``version`` say who answers, in the server's words.
    """

    text: str
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    model: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """A whole text; its fields are those of a `Piece`, over all of it."""

    text: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    logprobs: tuple[TokenLogprob, ...] | None
    model: str
    version: str


def whole(pieces: Iterable[Piece]) -> Generated:
    """The text that pieces make."""
    taken = list(pieces)
    last = taken[-1] if taken else Piece("")
    with_logprobs = [piece.logprobs for piece in taken if piece.logprobs is not None]
    return Generated(
        text="".join(piece.text for piece in taken),
        finish_reason=last.finish_reason,
        input_tokens=last.input_tokens,
        output_tokens=last.output_tokens,
        logprobs=tuple(token for tokens in with_logprobs for token in tokens) if with_logprobs else None,
        model=last.model,
        version=last.version,
    )


@dataclass(frozen=True)
class _Number:
    """A parameter's type and range; a float may be given as an int."""

    kind: type[int] | type[float]
    low: float = float("-inf")
    high: float = float("inf")

    def describe(self) -> str:
        name = "a whole number" if self.kind is int else "a number"
        if self.low == float("-inf"):
            return name
        return f"{name} from {self.low:g}" + (f" to {self.high:g}" if self.high != float("inf") else "")

    def takes(self, value: object) -> bool:
        allowed = (int,) if self.kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool) and self.low <= value <= self.high


_NUMBERS = {
    "max_tokens": _Number(int, 1),
    "min_tokens": _Number(int, 0),
    "temperature": _Number(float, 0),
    "top_p": _Number(float, 0, 1),
    "top_k": _Number(int, -1),
    "min_p": _Number(float, 0, 1),
    "presence_penalty": _Number(float, -2, 2),
    "frequency_penalty": _Number(float, -2, 2),
    "repetition_penalty": _Number(float, 0),
    "seed": _Number(int),
    "logprobs": _Number(int, 0),
}


def sampling_parameters(**options: Unpack[Sampling]) -> dict[str, Any]:
    """The keywords as the JSON object that a model's input `sampling_parameters` holds.

    Raises: InvalidInput for a name that there is not, with the nearest; for a value of another type or out of range.
    """
    unknown = [name for name in options if name not in Sampling.__annotations__]
    if unknown:
        close = nearest(unknown[0], Sampling.__annotations__)
        raise InvalidInput(
            f"there is no sampling parameter {unknown[0]}",
            got=unknown[0],
            expected=", ".join(Sampling.__annotations__),
            fix=f"did you mean {close}?" if close else f"for one of the engine's own: extra={{{unknown[0]!r}: ...}}",
        )
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    extra = given.pop("extra", {})
    for name, number in _NUMBERS.items():
        if name in given and not number.takes(given[name]):
            raise _refused(name, given[name], number.describe())
    if "stop" in given:
        given["stop"] = [given["stop"]] if isinstance(given["stop"], str) else list(given["stop"])
        if not all(isinstance(text, str) and text for text in given["stop"]):
            raise _refused("stop", given["stop"], "a text that is not empty, or a list of such")
    if "stop_token_ids" in given:
        given["stop_token_ids"] = list(given["stop_token_ids"])
        if not all(_NUMBERS["min_tokens"].takes(token) for token in given["stop_token_ids"]):
            raise _refused("stop_token_ids", given["stop_token_ids"], "a list of token ids, whole numbers from 0")
    if "ignore_eos" in given and not isinstance(given["ignore_eos"], bool):
        raise _refused("ignore_eos", given["ignore_eos"], "True or False")
    if "lora" in given and not (isinstance(given["lora"], str) and given["lora"]):
        raise _refused("lora", given["lora"], "the name of one of the model's adapters")
    if "json_schema" in given:
        if not isinstance(given["json_schema"], Mapping):
            raise _refused("json_schema", given["json_schema"], "a JSON schema as a mapping")
        given["guided_json"] = given.pop("json_schema")
    return given | dict(extra)


def _refused(name: str, got: object, expected: str) -> InvalidInput:
    return InvalidInput(f"{name} cannot be used", got=f"{name} {got!r:.80}", expected=expected)


def chat_document(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    template_variables: Mapping[str, Any] | None = None,
) -> str:
    """A chat as the JSON that a model's input `chat` holds. Raises: InvalidInput."""
    if isinstance(messages, str | Mapping) or not messages:
        raise InvalidInput(
            "a chat is a list of messages",
            got=f"{messages!r:.80}",
            expected='[{"role": "user", "content": "..."}, ...]',
        )
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            expected = '{"role": "system" | "user" | "assistant" | "tool", "content": "..."}'
            got = f"{message!r:.80}"
            raise InvalidInput("a message has no role", where=f"message {index}", got=got, expected=expected)
    document: dict[str, Any] = {"messages": [dict(message) for message in messages]}
    if tools:
        document["tools"] = [dict(tool) for tool in tools]
    if template_variables:
        document["template_variables"] = dict(template_variables)
    try:
        return json.dumps(document, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput("the chat cannot be written as JSON", got=error) from error
