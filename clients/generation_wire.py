"""A request for text as a model's tensors, and its responses as pieces. Pure, and quick: it runs for every token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clients.generation import Piece, TokenLogprob
from conch.errors import InvalidInput
from conch.tensor_spec import ModelSignature, describe_tensors

# Each adds an output of that name to every response. Models of older releases lack some.
_RETURNED = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")


@dataclass(frozen=True)
class TextRequest:
    """What to generate from: a prompt, or a chat as the JSON of `clients.generation.chat_document`."""

    sampling: Mapping[str, Any]
    prompt: str = ""
    chat: str | None = None
    stream: bool = False

    def inputs(self, signature: ModelSignature) -> dict[str, Any]:
        """The model's inputs. Raises: InvalidInput when the model generates no text, or takes no chat."""
        known = {spec.name for spec in signature.inputs}
        if "text_input" not in known:
            raise InvalidInput(
                "the model does not generate text",
                got=describe_tensors(signature.inputs, batched=signature.batched),
                expected="an input text_input, as models of `conch export llm` have",
                fix="ask it with infer or stream",
            )
        if self.chat is not None and "chat" not in known:
            raise InvalidInput(
                "the model takes no chat: its engine renders no template",
                expected="an input chat, as the OpenVINO models of `conch export llm` have",
                fix="render the messages and use generate, or ask through `conch gateway`, which renders them",
            )
        # What an engine of vLLM's names otherwise; only ours takes a chat.
        sampling = self.sampling if "chat" in known else _for_vllm(self.sampling)
        wanted: dict[str, Any] = {"stream": self.stream, "exclude_input_in_output": True}
        wanted |= dict.fromkeys(_RETURNED, True)
        if "logprobs" in sampling:
            wanted["return_logprobs"] = True
        if self.chat is not None:
            wanted["chat"] = self.chat
        if sampling:
            wanted["sampling_parameters"] = _json(sampling)
        return {"text_input": self.prompt} | {name: value for name, value in wanted.items() if name in known}


def _json(sampling: Mapping[str, Any]) -> str:
    try:
        return json.dumps(sampling, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput("the sampling parameters cannot be written as JSON", got=error) from error


def _for_vllm(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Adapters and schemas under the names of Triton's vLLM backend.

    Source: https://github.com/triton-inference-server/vllm_backend/blob/main/src/utils/vllm_backend_utils.py
    """
    named = dict(sampling)
    if "lora" in named:
        named["lora_name"] = named.pop("lora")
    if "guided_json" in named:
        named["guided_decoding"] = _json({"json": named.pop("guided_json")})
    return named


def piece_reader(request: TextRequest) -> Callable[[Any], Piece | None]:
    """A function from one stream's responses (ModelInferResponse), in turn, to pieces; None for one that is empty.

    Only the first of several outputs is read: a request asks for one text. Token counts come as the tokens of each
    response, and are added up.
    """
    alternatives = int(request.sampling.get("logprobs", 0))
    input_tokens: int | None = None
    output_tokens: int | None = None

    def read(response: Any) -> Piece | None:
        nonlocal input_tokens, output_tokens
        raw = response.raw_output_contents
        found = {output.name: raw[index] for index, output in enumerate(response.outputs)}
        if "text_output" not in found:
            return None
        if counted := found.get("num_input_tokens"):
            input_tokens = int.from_bytes(counted[:4], "little")
        if counted := found.get("num_output_tokens"):
            output_tokens = (output_tokens or 0) + int.from_bytes(counted[:4], "little")
        reason = _text(found.get("finish_reason", b""))
        logprobs = found.get("logprobs")
        return Piece(
            _text(found["text_output"]),
            # vLLM's backend says "None" until the text has ended.
            None if reason in ("", "None") else reason,
            input_tokens,
            output_tokens,
            _token_logprobs(json.loads(_text(logprobs)), alternatives) if logprobs else None,
            response.model_name,
            response.model_version,
        )

    return read


def _text(raw: bytes) -> str:
    """The first item of a BYTES tensor: its length in four bytes, then itself."""
    return raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode("utf-8", errors="replace")


def _token_logprobs(tokens: Sequence[Mapping[str, Any]] | None, alternatives: int) -> tuple[TokenLogprob, ...] | None:
    """A list with, for each token, {id: {"logprob", "rank", "decoded_token"}}: the token itself first, then the top."""
    if tokens is None:
        return None
    read = []
    for candidates in tokens:
        each = [_logprob(token_id, of) for token_id, of in candidates.items()]
        # One whose rank nobody knows is not said to be among the most likely.
        ranks = [of.get("rank") for of in candidates.values()]
        ranked = sorted((rank, index) for index, rank in enumerate(ranks) if rank is not None)
        top = tuple(each[index] for _, index in ranked[:alternatives])
        read.append(TokenLogprob(each[0].token, each[0].logprob, each[0].token_id, top))
    return tuple(read)


def _logprob(token_id: str, of: Mapping[str, Any]) -> TokenLogprob:
    return TokenLogprob(of.get("decoded_token") or "", float(of["logprob"]), int(token_id))
