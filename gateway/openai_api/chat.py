"""POST /v1/chat/completions.

Source: https://platform.openai.com/docs/api-reference/chat
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

from clients.generation import Generated, TokenLogprob
from gateway.caller import admitted, gateway_of
from gateway.openai_api.bodies import ChatBody
from gateway.openai_api.chat_prompt import chat_prompt
from gateway.openai_api.choices import Run, TokenCounts, pieces_of, usage_of, whole_texts
from gateway.openai_api.events import Events, event_response
from gateway.openai_api.logprobs import chat_logprobs
from gateway.openai_api.reading import post_route, read_body
from gateway.openai_api.sampling import chat_sampling, for_choice
from gateway.openai_api.served import require_kind
from gateway.openai_api.tool_calls import Read, ToolCall, ToolCallReader
from gateway.request_info import request_info

router = APIRouter(tags=["openai"])


async def chat_completions(request: Request) -> Response:
    """Answer a chat, whole or as a stream of events."""
    caller = await admitted(request)
    info = await request_info(request)
    body = await read_body(request, ChatBody)
    door = gateway_of(request).door
    served = await door.model(caller, body.model, request=info)
    require_kind(served, "generate", "/v1/chat/completions")
    prompt = chat_prompt(body, served)
    sampling = chat_sampling(body, served)

    def run(choice: int) -> Run:
        chosen = for_choice(sampling, choice)
        return lambda: door.generate(caller, body.model, prompt, chosen, request=info, stream=bool(body.stream))

    runs = [run(choice) for choice in range(body.n or 1)]
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if body.stream:
        return await event_response(_events(body, head, runs))
    texts = await whole_texts(runs)
    usage = usage_of(texts, len(texts))
    document = {
        **head,
        "object": "chat.completion",
        "system_fingerprint": fingerprint(texts[0].model, texts[0].version),
        "choices": [_choice(body, index, text) for index, text in enumerate(texts)],
        "usage": usage.as_json() if usage else None,
    }
    return Response(json.dumps(document, separators=(",", ":")), media_type="application/json")


def fingerprint(model: str, version: str) -> str | None:
    """Who answered, in the field that OpenAI has for what may change an answer."""
    return f"{model}/{version}" if version else None


def _choice(body: ChatBody, index: int, text: Generated) -> dict[str, Any]:
    content, calls = _split(body, text.text)
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if calls:
        message["tool_calls"] = [call.as_json() for call in calls]
    logprobs = chat_logprobs(text.logprobs, body.top_logprobs or 0) if text.logprobs is not None else None
    finish = _finish(text.finish_reason, bool(calls))
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _split(body: ChatBody, text: str) -> tuple[str, list[ToolCall]]:
    reader = _reader(body)
    if reader is None:
        return text, []
    parts = (reader.feed(text), reader.close())
    return "".join(part.text for part in parts), [call for part in parts for call in part.calls]


def _reader(body: ChatBody) -> ToolCallReader | None:
    """What finds calls in an answer; None where there can be none."""
    if not body.tools or body.tool_choice == "none":
        return None
    return ToolCallReader([tool.function.name for tool in body.tools], only_one=body.parallel_tool_calls is False)


def _finish(reason: str | None, called: bool) -> str:
    """A text that ended as it should is a "stop" where the model's server does not say."""
    return "tool_calls" if called and reason != "length" else reason or "stop"


async def _events(body: ChatBody, head: Mapping[str, object], runs: Sequence[Run]) -> AsyncGenerator[str, None]:
    """The events of a streamed answer; the first of a choice tells the role, the last why it ended."""
    counts = TokenCounts(len(runs))
    choices: dict[int, _StreamedChoice] = {}
    events: Events | None = None
    async with contextlib.aclosing(pieces_of(runs)) as pieces:
        async for index, piece in pieces:
            if events is None:
                made_by = fingerprint(piece.model, piece.version)
                document = {**head, "object": "chat.completion.chunk", "system_fingerprint": made_by}
                events = Events(document, with_usage=bool(body.stream_options and body.stream_options.include_usage))
            counts.saw(index, piece)
            written = ""
            choice = choices.get(index)
            if choice is None:
                choice = choices[index] = _StreamedChoice(index, events, _reader(body), body.top_logprobs or 0)
                written = events.choice(index, '"delta":{"role":"assistant","content":""}')
            written += choice.piece(piece.text, piece.logprobs)
            if piece.finish_reason is not None:
                written += choice.finish(piece.finish_reason)
            if written:
                yield written
    if events is None:
        events = Events({**head, "object": "chat.completion.chunk"}, with_usage=False)
    unfinished = [choice.finish(None) for choice in choices.values() if not choice.finished]
    yield "".join(unfinished) + events.last(counts.usage())


class _StreamedChoice:
    """One choice of a streamed answer: what of it was written, and what is held back as it may be a call."""

    def __init__(self, index: int, events: Events, reader: ToolCallReader | None, top: int) -> None:
        self._index = index
        self._events = events
        self._reader = reader
        self._top = top
        self._calls = 0
        self._tokens: list[TokenLogprob] = []
        self.finished = False

    def piece(self, text: str, tokens: Sequence[TokenLogprob] | None) -> str:
        """The events of one piece; none while it is held back."""
        if tokens:
            self._tokens += tokens
        if self._reader is None:
            return self._text(text)
        return self._read(self._reader.feed(text))

    def finish(self, reason: str | None) -> str:
        """The last events."""
        self.finished = True
        written = self._read(self._reader.close()) if self._reader is not None else ""
        return written + self._events.choice(
            self._index, '"delta":{}', logprobs=self._logprobs(), finish=_finish(reason, self._calls > 0)
        )

    def _read(self, read: Read) -> str:
        written = self._text(read.text)
        for call in read.calls:
            delta = json.dumps({"tool_calls": [{"index": self._calls} | call.as_json()]}, separators=(",", ":"))
            written += self._events.choice(self._index, f'"delta":{delta}', logprobs=self._logprobs())
            self._calls += 1
        return written

    def _text(self, text: str) -> str:
        if not text:
            return ""
        content = f'"delta":{{"content":{json.dumps(text)}}}'
        return self._events.choice(self._index, content, logprobs=self._logprobs() if self._tokens else "null")

    def _logprobs(self) -> str:
        """The log-probabilities that no event has told yet."""
        if not self._tokens:
            return "null"
        told, self._tokens = self._tokens, []
        return json.dumps(chat_logprobs(told, self._top), separators=(",", ":"))


post_route(router, "/v1/chat/completions", chat_completions, ChatBody)
