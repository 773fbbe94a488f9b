"""From OpenAI's messages to what a model is asked: a chat that its own backend renders, or the text rendered here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.catalogue import ServedModel
from gateway.errors import GatewayError
from gateway.openai_api.bodies import ChatBody, EarlierCall, Message
from gateway.openai_api.chat_template import render_chat
from gateway.openai_api.sampling import invalid

# Where the exporter of vLLM models leaves the template, and the token that some write behind earlier answers.
TEMPLATE_PARAMETER = "chat_template"
EOS_PARAMETER = "eos_token"


def chat_prompt(body: ChatBody, served: ServedModel) -> str | Mapping[str, Any]:
    """What `Door.generate` takes. Raises: GatewayError 400."""
    messages = [template_message(message, index) for index, message in enumerate(body.messages)]
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or []] if body.tool_choice != "none" else []
    variables = body.chat_template_kwargs or {}
    if any(spec.name == "chat" for spec in served.signature.inputs):
        chat: dict[str, Any] = {"messages": messages}
        return chat | ({"tools": tools} if tools else {}) | ({"template_variables": variables} if variables else {})
    template = served.parameters.get(TEMPLATE_PARAMETER)
    if not template:
        raise GatewayError(
            f"model {body.model} has no chat template",
            status=400,
            code="no_chat_template",
            param="model",
            fix="ask /v1/completions, or export the model again with `conch export llm`",
        )
    if tools and "tools" not in template:
        raise invalid("tools", "this model's chat template knows no tools")
    return render_chat(
        template, messages, tools, {EOS_PARAMETER: served.parameters.get(EOS_PARAMETER, ""), **variables}
    )


def template_message(message: Message, index: int) -> dict[str, Any]:
    """A message as chat templates expect it: text as one string, arguments of calls as objects, no empty keys.

    Raises: GatewayError 400 for parts that are no text.
    """
    given = message.model_dump(exclude_none=True)
    # OpenAI's newer name for what templates know as system.
    given["role"] = "system" if message.role == "developer" else message.role
    given["content"] = _text(message, index)
    if message.tool_calls:
        given["tool_calls"] = [_call(call, index) for call in message.tool_calls]
    return given


def _text(message: Message, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    texts = []
    for place, part in enumerate(message.content):
        if part.type not in ("text", "refusal"):
            raise invalid(f"messages[{index}].content[{place}]", f"this model takes text alone, not {part.type[:40]!r}")
        texts.append(part.text or "")
    return "\n".join(texts)


def _call(call: EarlierCall, index: int) -> dict[str, Any]:
    arguments: Any = call.function.arguments
    try:
        arguments = json.loads(arguments or "{}")
    except ValueError:
        what = "'arguments' of a tool call must be the text of a JSON object"
        raise invalid(f"messages[{index}].tool_calls", what) from None
    function = {"name": call.function.name, "arguments": arguments}
    return {"type": "function", "function": function} | ({"id": call.id} if call.id else {})
