"""Tool calls out of a model's text, in the formats that chat templates of today teach.

<tool_call>{"name": ..., "arguments": {...}}</tool_call>      Hermes, Qwen: anywhere in the text, any number
[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]           Mistral: the whole answer
<|python_tag|>{"name": ..., "parameters": {...}}; {...}        Llama 3: the whole answer; the tag may be missing

The tags are special tokens in some tokenizers, and then do not reach the text: an answer that is nothing but JSON
objects which name tools that were offered is taken for calls, whatever stood before it. All else stays text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_WHOLE_ANSWER_TAGS = ("<|python_tag|>", "[TOOL_CALLS]")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class ToolCall:
    """One call: ``arguments`` is the text of a JSON object, as OpenAI's clients expect it."""

    id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, Any]:
        """The call in a message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class Read:
    """What became sure with the latest piece of text."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


class ToolCallReader:
    """Splits a growing answer into text and calls; what may still become a call is held back."""

    def __init__(self, tools: Collection[str], *, only_one: bool = False) -> None:
        """``only_one`` drops all calls but the first."""
        self._tools = frozenset(tools)
        self._only_one = only_one
        self._called = False
        self._held = ""
        self._begun = False  # whether text was let through, so that the whole answer can no longer be a call

    def feed(self, piece: str) -> Read:
        """Take the next piece of the answer."""
        self._held += piece
        if not self._begun and _may_be_whole(self._held):
            return Read()
        text, calls = "", []
        while True:
            start = self._held.find(_OPEN)
            if start < 0:
                kept = _overlap(self._held, _OPEN)
                text += self._held[: len(self._held) - kept]
                self._held = self._held[len(self._held) - kept :]
                break
            end = self._held.find(_CLOSE, start)
            if end < 0:
                text += self._held[:start]
                self._held = self._held[start:]
                break
            whole = self._held[start : end + len(_CLOSE)]
            found = self._read(whole[len(_OPEN) : -len(_CLOSE)])
            text += self._held[:start] + ("" if found else whole)
            calls += found
            self._held = self._held[end + len(_CLOSE) :]
        # The line breaks that templates put around calls are not part of an answer.
        text = text.strip("\n") if calls and not text.strip() else text
        self._begun = self._begun or bool(text.strip()) or bool(calls)
        return self._sure(text, calls)

    def close(self) -> Read:
        """The answer is whole: what was held back is a call, or it is text."""
        held, self._held = self._held, ""
        body = held.strip()
        if body.startswith(_OPEN):  # the closing tag was cut off, or is a stop token
            body = body[len(_OPEN) :]
        elif self._begun:
            return Read(held)
        for tag in _WHOLE_ANSWER_TAGS:
            body = body.removeprefix(tag)
        found = self._read(body)
        return self._sure("" if found else held, found)

    def _sure(self, text: str, calls: list[ToolCall]) -> Read:
        if self._only_one:
            calls = [] if self._called else calls[:1]
        self._called = self._called or bool(calls)
        return Read(text, tuple(calls))

    def _read(self, body: str) -> list[ToolCall]:
        """The calls in JSON text, or none when any of it is no call."""
        objects = _objects(body.strip())
        calls = [self._call(value) for value in objects]
        return [call for call in calls if call is not None] if all(calls) else []

    def _call(self, value: Any) -> ToolCall | None:
        if not isinstance(value, dict) or value.get("name") not in self._tools:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return (
            ToolCall(f"call_{uuid.uuid4().hex[:24]}", value["name"], arguments) if isinstance(arguments, str) else None
        )


def _objects(text: str) -> Sequence[Any]:
    """The JSON objects of a list, or of objects behind one another with `;` or white space between; none if broken."""
    found: list[Any] = []
    while text:
        try:
            value, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            return []
        found += value if isinstance(value, list) else [value]
        text = text[end:].lstrip(" \n\t;")
    return found


def _may_be_whole(text: str) -> bool:
    """Whether an answer that begins like this may be nothing but calls."""
    begin = text.lstrip()
    return begin[:1] in ("", "{", "[") or any(
        begin.startswith(tag) or tag.startswith(begin) for tag in _WHOLE_ANSWER_TAGS
    )


def _overlap(text: str, tag: str) -> int:
    """How many of the last characters may be the beginning of the tag."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
