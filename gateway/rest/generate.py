"""POST /generate: a prompt or a chat in, the whole text out. POST /stream: the same, as server-sent events.

An event is one piece, as it is made: ``data: {"text": "..."}``; the last one has finish_reason and usage. A failure in
the middle is an event named error, in the shape that errors have everywhere. Closing the connection cancels the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from clients.generation import Piece, Sampling, TokenLogprob, chat_document, sampling_parameters, whole
from conch.errors import InvalidInput, nearest
from gateway.caller import Caller, admitted, gateway_of
from gateway.errors import GatewayError, error_body, from_client_error
from gateway.event_stream import EventStream
from gateway.request_info import request_info
from gateway.rest.headers import answered_by
from gateway.rest.json_body import check_depth, kind_of, read_object, write_json

router = APIRouter()

_CHAT = ("messages", "tools", "template_variables")
_FIELDS = ("model", "prompt", *_CHAT, *Sampling.__annotations__)

# What a field has to be before it is looked at; numbers are checked with their ranges by `sampling_parameters`.
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "a model's name"),
    "prompt": ((str,), "text"),
    "messages": ((list,), '[{"role": "user", "content": "..."}, ...]'),
    "tools": ((list,), "a list of objects"),
    "template_variables": ((dict,), "an object"),
    "stop": ((str, list), "a text, or a list of texts"),
    "stop_token_ids": ((list,), "a list of whole numbers"),
    "json_schema": ((dict,), "a JSON schema"),
    "extra": ((dict,), "an object"),
}


@dataclass(frozen=True)
class Wish:
    """What a body asks for: a model (empty for the only one), a prompt or a chat, and how to choose tokens."""

    model: str
    prompt: str | Mapping[str, Any]
    sampling: Mapping[str, Any]


def read_wish(document: Mapping[str, Any]) -> Wish:
    """The body of /generate and /stream. Raises: GatewayError 400, with the field."""
    for name, value in document.items():
        if name not in _FIELDS:
            close = nearest(name, _FIELDS)
            fix = f"did you mean {close}?" if close else "parameters of the model's own engine go into extra"
            raise GatewayError(f"there is no field {name[:80]}", param=name[:80], expected=", ".join(_FIELDS), fix=fix)
        kinds, expected = _TYPES.get(name, ((), ""))
        if kinds and value is not None and not isinstance(value, kinds):
            raise GatewayError(f"{name} has the wrong type", param=name, got=kind_of(value), expected=expected)
    check_depth(document)
    given = {name: value for name, value in document.items() if value is not None}
    if ("prompt" in given) == ("messages" in given):
        got = "both" if "prompt" in given else "neither"
        raise GatewayError("one of prompt and messages is due", param="prompt", got=got, expected="one of them")
    return Wish(given.get("model", ""), _read_prompt(given), _read_sampling(given))


def _read_prompt(given: Mapping[str, Any]) -> str | Mapping[str, Any]:
    """The text, or the chat. Raises: GatewayError 400."""
    if "prompt" in given:
        if not given["prompt"]:
            raise GatewayError("the prompt is empty", param="prompt", expected="text")
        return str(given["prompt"])
    chat = {name: given[name] for name in _CHAT if name in given}
    try:
        chat_document(**chat)
    except InvalidInput as error:
        raise from_client_error(error, param="messages") from error
    except (TypeError, ValueError) as error:  # tools that are no objects
        raise GatewayError("the chat cannot be used", param="tools", expected=_TYPES["tools"][1]) from error
    return chat


def _read_sampling(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """How to choose tokens. Raises: GatewayError 400."""
    try:
        return sampling_parameters(**{n: v for n, v in given.items() if n in Sampling.__annotations__})
    except InvalidInput as error:
        raise from_client_error(error, param=error.what.partition(" ")[0]) from error


async def generate(request: Request) -> Response:
    """Answer with the whole text."""
    pieces = await _pieces(request, stream=False)
    async with contextlib.aclosing(pieces):
        text = whole([piece async for piece in pieces])
    document: dict[str, Any] = {
        "text": text.text,
        "finish_reason": text.finish_reason,
        "usage": {"input_tokens": text.input_tokens, "output_tokens": text.output_tokens},
    }
    if text.logprobs is not None:
        document["logprobs"] = [_logprob(token) for token in text.logprobs]
    headers = answered_by(text.model, text.version)
    return Response(write_json(document), headers=headers, media_type="application/json")


async def stream(request: Request) -> Response:
    """Answer piece by piece. What fails before the first piece is an answer with its own status."""
    pieces = await _pieces(request, stream=True)
    try:
        first = await anext(pieces, Piece(""))
    except BaseException:
        await pieces.aclose()
        raise
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **answered_by(first.model, first.version)}
    return EventStream(_events(first, pieces), pieces, headers)


async def _pieces(request: Request, *, stream: bool) -> AsyncGenerator[Piece, None]:
    """The pieces of what the body asks for. Raises: GatewayError 400, 401, 403, 404."""
    caller, info = await admitted(request), await request_info(request)
    wish = read_wish(read_object(await request.body()))
    door = gateway_of(request).door
    name = wish.model or await _only_model(request, caller)
    model = await door.model(caller, name, request=info)
    if model.kind != "generate":
        fix = f"POST /predict/{model.name}"
        raise GatewayError(
            f"model {model.name} does not generate text", param="model", got=f"kind {model.kind}", fix=fix
        )
    return door.generate(caller, name, wish.prompt, wish.sampling, request=info, stream=stream)


async def _only_model(request: Request, caller: Caller) -> str:
    """The model of a body that names none. Raises: GatewayError 400 unless there is one to choose from."""
    models = await gateway_of(request).catalogue.models()
    names = [model.name for model in models if model.kind == "generate" and caller.may_use(model.name)]
    if len(names) != 1:
        expected = f"one of {', '.join(names)}" if names else "no model that generates text is served"
        raise GatewayError("the body names no model", param="model", got="no model", expected=expected)
    return names[0]


async def _events(first: Piece, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    """Server-sent events. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    async with contextlib.aclosing(pieces):
        try:
            yield _event(first)
            async for piece in pieces:
                yield _event(piece)
        except GatewayError as error:
            yield b"event: error\ndata: " + write_json(error_body(error)) + b"\n\n"


def _event(piece: Piece) -> bytes:
    document: dict[str, Any] = {"text": piece.text}
    if piece.logprobs is not None:
        document["logprobs"] = [_logprob(token) for token in piece.logprobs]
    if piece.finish_reason is not None:
        document["finish_reason"] = piece.finish_reason
        document["usage"] = {"input_tokens": piece.input_tokens, "output_tokens": piece.output_tokens}
    return b"data: " + write_json(document) + b"\n\n"


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    document: dict[str, Any] = {"token": token.token, "logprob": token.logprob, "token_id": token.token_id}
    return document | ({"top": [_logprob(other) for other in token.top]} if token.top else {})


router.add_route("/generate", generate, methods=["POST"], include_in_schema=False)
router.add_route("/stream", stream, methods=["POST"], include_in_schema=False)
