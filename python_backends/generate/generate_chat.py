"""A chat as the prompt that its model was trained on: the version's own template, rendered as transformers does it.

Source: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from generate_refusal import Refused, invalid


class GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}`, which marks what an assistant said for training: here its content, no more."""

    tags = frozenset({"generation"})

    def parse(self, parser: Any) -> Any:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A version's chat_template.jinja. It runs in a sandbox: it came with the model, from anywhere."""

    def __init__(self, path: Path, special_tokens: Mapping[str, str]) -> None:
        """``special_tokens`` by the names that templates use, as bos_token. Raises: ValueError for a bad template."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self._special_tokens = special_tokens
        try:
            self._template = environment.from_string(path.read_text(encoding="utf-8"))
        except jinja2.TemplateError as error:
            raise ValueError(f"{path}: {error}, expected a chat template") from error

    def render(self, document: str) -> str:
        """The prompt for {"messages": [...], "tools": [...], "template_variables": {...}}. Raises: Refused."""
        try:
            chat = json.loads(document)
        except ValueError as error:
            raise Refused(f"invalid: chat: {error}, expected a JSON object") from error
        if not isinstance(chat, dict) or set(chat) - {"messages", "tools", "template_variables"}:
            raise invalid("chat", chat, "a JSON object with messages, and perhaps tools and template_variables")
        messages, variables = chat.get("messages"), chat.get("template_variables") or {}
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise invalid("chat: messages", messages, "a list of objects, one at least")
        if not isinstance(variables, dict):
            raise invalid("chat: template_variables", variables, "an object")
        names = {**self._special_tokens, "add_generation_prompt": True, **variables}
        try:
            return self._template.render(messages=messages, tools=chat.get("tools"), **names)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Refused(f"invalid: chat: the model's template refuses it: {error}") from error


def _to_json(value: Any, **options: Any) -> str:
    """As templates expect it: jinja's own writes <, > and & as escapes for HTML."""
    return json.dumps(value, ensure_ascii=options.pop("ensure_ascii", False), **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
