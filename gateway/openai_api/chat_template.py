"""Render a chat with the template of a model whose server takes plain text only (Triton's vLLM backend).

The template comes with the model, so it is somebody else's code: it runs in jinja2's sandbox, which keeps it from
Python's internals and from changing what it is given. The environment is what transformers gives chat templates.

Source: transformers.utils.chat_template_utils
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import GatewayError

# vLLM's tokenizer puts the first token of a text before it: a template must not do that a second time.
_TOKENS = {"bos_token": "", "eos_token": "", "unk_token": "", "pad_token": ""}


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The prompt for the assistant's next answer.

    ``variables`` are the template's own, such as ``enable_thinking``. Raises: GatewayError (400) when the template
    refuses the messages, or does not know what they contain.
    """
    given = {**_TOKENS, "add_generation_prompt": True, **(variables or {})}
    given |= {"messages": list(messages), "tools": list(tools) if tools else None}
    try:
        return _compiled(template).render(given)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
        raise GatewayError(
            f"the model's chat template cannot render these messages: {error}",
            status=400,
            type="invalid_request_error",
            param="messages",
        ) from error


@functools.lru_cache(maxsize=64)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json  # jinja2's own escapes for HTML
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment.from_string(template)


def _to_json(value: Any, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
