"""POST /v1/completions: text goes on where a prompt ends, with no chat template.

Source: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from clients.generation import Generated, Piece
from gateway.caller import admitted, gateway_of
from gateway.openai_api.bodies import CompletionBody
from gateway.openai_api.chat import fingerprint
from gateway.openai_api.choices import Run, TokenCounts, pieces_of, usage_of, whole_texts
from gateway.openai_api.events import Events, event_response
from gateway.openai_api.logprobs import completion_logprobs
from gateway.openai_api.reading import post_route, read_body
from gateway.openai_api.sampling import completion_sampling, for_choice
from gateway.openai_api.served import require_kind
from gateway.openai_api.vocabulary import prompt_texts
from gateway.request_info import request_info

router = APIRouter(tags=["openai"])


async def completions(request: Request) -> Response:
    """Continue one prompt or several, whole or as a stream of events."""
    caller = await admitted(request)
    info = await request_info(request)
    body = await read_body(request, CompletionBody)
    gateway = gateway_of(request)
    served = await gateway.door.model(caller, body.model, request=info)
    require_kind(served, "generate", "/v1/completions")
    sampling = completion_sampling(body, served)
    prompts = await prompt_texts(body.prompt, served, gateway.settings.repository)

    def run(prompt: str, choice: int) -> Run:
        chosen = for_choice(sampling, choice)
        return lambda: gateway.door.generate(caller, body.model, prompt, chosen, request=info, stream=bool(body.stream))

    choices = body.n or 1
    runs = [run(prompt, choice) for prompt in prompts for choice in range(choices)]
    echoed = [prompt if body.echo else "" for prompt in prompts for _ in range(choices)]
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
    head["model"] = body.model
    if body.stream:
        return await event_response(_events(body, head, runs, echoed))
    texts = await whole_texts(runs)
    usage = usage_of(texts, choices)
    document = {
        **head,
        "system_fingerprint": fingerprint(texts[0].model, texts[0].version),
        "choices": [_choice(body, index, echoed[index], text) for index, text in enumerate(texts)],
        "usage": usage.as_json() if usage else None,
    }
    return Response(json.dumps(document, separators=(",", ":")), media_type="application/json")


def _choice(body: CompletionBody, index: int, echoed: str, text: Generated) -> dict[str, Any]:
    logprobs = completion_logprobs(text.logprobs, body.logprobs or 0) if text.logprobs is not None else None
    return {
        "text": echoed + text.text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": text.finish_reason or "stop",
    }


async def _events(
    body: CompletionBody, head: Mapping[str, object], runs: Sequence[Run], echoed: Sequence[str]
) -> AsyncGenerator[str, None]:
    """The events of a streamed answer, one a piece."""
    counts = TokenCounts(body.n or 1)
    lengths: dict[int, int] = {}  # of each text so far, in characters
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    events: Events | None = None
    async with contextlib.aclosing(pieces_of(runs)) as pieces:
        async for index, piece in pieces:
            if events is None:
                made_by = fingerprint(piece.model, piece.version)
                events = Events({**head, "system_fingerprint": made_by}, with_usage=with_usage)
            counts.saw(index, piece)
            text = piece.text if index in lengths else echoed[index] + piece.text
            if text or piece.finish_reason is not None:
                offset = lengths.get(index, 0)
                logprobs = _logprobs(piece, body.logprobs, offset)
                yield events.choice(index, f'"text":{json.dumps(text)}', logprobs=logprobs, finish=piece.finish_reason)
                lengths[index] = offset + len(text)
    yield (events or Events(dict(head), with_usage=with_usage)).last(counts.usage())


def _logprobs(piece: Piece, top: int | None, offset: int) -> str:
    if not piece.logprobs:
        return "null"
    return json.dumps(completion_logprobs(piece.logprobs, top or 0, offset), separators=(",", ":"))


post_route(router, "/v1/completions", completions, CompletionBody)
