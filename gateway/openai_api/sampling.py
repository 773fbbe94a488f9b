"""From what OpenAI's clients say of sampling to the parameters of a model's engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.generation import sampling_parameters
from conch.errors import InvalidInput
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError, from_client_error
from gateway.openai_api.bodies import ChatBody, CompletionBody, GenerationBody, NamedTool, ResponseFormat, Tool

# What OpenAI documents for completions that do not say how long they may be.
COMPLETION_TOKENS = 16

# JSON of any kind, as response_format's json_object asks for it.
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def chat_sampling(body: ChatBody, served: ServedModel) -> dict[str, Any]:
    """The parameters of a chat's answer. Raises: GatewayError 400."""
    refuse(body, functions="tools", function_call="tool_choice", audio=None, web_search_options=None, moderation=None)
    if body.modalities and body.modalities != ["text"]:
        raise unsupported("modalities", "this model answers in text alone")
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true")
    max_tokens = body.max_completion_tokens or body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _sampling(body, served, max_tokens, logprobs, called_schema(body) or _schema(body))


def completion_sampling(body: CompletionBody, served: ServedModel) -> dict[str, Any]:
    """The parameters of a completion. Raises: GatewayError 400."""
    refuse(body, suffix=None)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "this server returns every choice that it makes: use 'n'")
    if body.echo and body.logprobs is not None:
        raise unsupported("echo", "the engine gives no log-probabilities of the prompt: leave out 'echo' or 'logprobs'")
    return _sampling(body, served, body.max_tokens or COMPLETION_TOKENS, body.logprobs, _schema(body))


def for_choice(sampling: Mapping[str, Any], choice: int) -> Mapping[str, Any]:
    """The parameters of one of ``n`` choices: with the same seed they would all be the same."""
    return {**sampling, "seed": sampling["seed"] + choice} if choice and "seed" in sampling else sampling


def called_schema(body: ChatBody) -> Mapping[str, Any] | None:
    """What the answer must be where a tool must be called: a JSON object that names it; None where none must."""
    if body.tool_choice in (None, "none", "auto"):
        return None
    tools = body.tools or []
    if isinstance(body.tool_choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == body.tool_choice.function.name]
    if not tools:
        raise invalid("tool_choice", "'tool_choice' asks for a tool that is not among 'tools'")
    calls = [_call_schema(tool) for tool in tools]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _call_schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": [tool.function.name]},
            "arguments": tool.function.parameters or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _schema(body: ChatBody | CompletionBody) -> Mapping[str, Any] | None:
    form: ResponseFormat | None = body.response_format
    if form is None or form.type == "text":
        return body.guided_json
    if body.guided_json is not None:
        raise invalid("guided_json", "give 'response_format' or 'guided_json', not both")
    if form.type == "json_object":
        return _ANY_OBJECT
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise GatewayError(
            "Missing required parameter: 'response_format.json_schema.schema'",
            code="missing_required_parameter",
            param="response_format.json_schema.schema",
        )
    return form.json_schema.schema_


def _sampling(
    body: GenerationBody,
    served: ServedModel,
    max_tokens: int | None,
    logprobs: int | None,
    schema: Mapping[str, Any] | None,
) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if max_tokens is None:
        extra["max_tokens"] = _whole_context(served)
    if body.logit_bias:
        if served.backend != "vllm":
            raise unsupported("logit_bias", "this model's engine has no such setting")
        extra["logit_bias"] = body.logit_bias
    try:
        return sampling_parameters(
            max_tokens=max_tokens,
            min_tokens=body.min_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=body.repetition_penalty,
            stop=body.stop or None,
            stop_token_ids=body.stop_token_ids,
            ignore_eos=body.ignore_eos,
            seed=body.seed,
            logprobs=logprobs,
            json_schema=schema,
            lora=body.lora,
            extra=extra,
        )
    except InvalidInput as error:
        raise from_client_error(error) from error


def _whole_context(served: ServedModel) -> int | None:
    """As many tokens as fit: None for our engine. Triton's vLLM backend drops a None; vLLM stops where it must."""
    length = served.parameters.get("context_length", "")
    return int(length) if served.backend == "vllm" and length.isdecimal() else None


def refuse(body: GenerationBody, **instead: str | None) -> None:
    """Raise GatewayError 400 when the body asks for one of these; the values name what there is instead."""
    for name, other in instead.items():
        if getattr(body, name):
            raise unsupported(name, f"use '{other}'" if other else "this server cannot do it")


def unsupported(param: str, why: str) -> GatewayError:
    """A parameter that OpenAI has, and that nothing here can follow."""
    return GatewayError(
        f"Unsupported parameter: '{param}': {why}", status=400, code="unsupported_parameter", param=param
    )


def invalid(param: str, what: str) -> GatewayError:
    """A value that does not go with the others."""
    return GatewayError(what, status=400, code="invalid_value", param=param)
