"""Bodies of requests: what is taken, and with which words the rest is refused."""

import inspect
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from starlette.requests import Request

from gateway.errors import GatewayError
from gateway.openai_api.bodies import ChatBody, CompletionBody, EmbeddingsBody, RerankBody
from gateway.openai_api.reading import openapi_body, read_body

INVALID = "invalid_value"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}
EMBEDDINGS: dict[str, Any] = {"model": "m", "input": "hi"}
RERANK: dict[str, Any] = {"model": "m", "query": "q", "documents": ["a"]}


async def read(kind: type[BaseModel], body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return await read_body(Request({"type": "http", "headers": []}, receive), kind)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (ChatBody, {"temperature": 1, "n": 3, "stop": ["a", "b"], "seed": -1, "logit_bias": {"7": -100}}),
        (ChatBody, {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
        (ChatBody, {"user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "max_tokens": None}),
        (ChatBody, {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}], "tool_choice": "auto"}),
        (ChatBody, {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}),
        (ChatBody, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "Ann"}]}),
        (ChatBody, {"messages": [{"role": "assistant", "content": None, "reasoning_content": "hm"}]}),
        (ChatBody, {"top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}}),
        (CompletionBody, {"prompt": ["a", "b"], "echo": True, "logprobs": 5}),
        (CompletionBody, {"prompt": [1, 2, 3]}),
        (CompletionBody, {"prompt": [[1], [2, 3]]}),
        (EmbeddingsBody, {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 3, "user": "u"}),
        (RerankBody, {"documents": ["a", {"text": "b", "more": 1}], "top_n": 1, "return_documents": True}),
    ],
)
async def test_what_clients_send_is_taken(kind: type[BaseModel], more: dict[str, Any]) -> None:
    base = {ChatBody: CHAT, CompletionBody: COMPLETION, EmbeddingsBody: EMBEDDINGS, RerankBody: RERANK}[kind]
    body = await read(kind, json.dumps({**base, **more}).encode())
    assert body.model == "m"


@pytest.mark.parametrize(
    ("kind", "more", "param", "code"),
    [
        (ChatBody, {"temperature": 3}, "temperature", INVALID),
        (ChatBody, {"temperature": "1"}, "temperature", INVALID),
        (ChatBody, {"n": 0}, "n", INVALID),
        (ChatBody, {"n": True}, "n", INVALID),
        (ChatBody, {"messages": []}, "messages", INVALID),
        (ChatBody, {"messages": [{"role": "king", "content": ""}]}, "messages[0].role", INVALID),
        (ChatBody, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", INVALID),
        (ChatBody, {"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        (ChatBody, {"temprature": 1}, "temprature", "unknown_parameter"),
        (ChatBody, {"stop": 5}, "stop", INVALID),
        (ChatBody, {"response_format": {"type": "xml"}}, "response_format.type", INVALID),
        (
            ChatBody,
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            INVALID,
        ),
        (ChatBody, {"model": ""}, "model", INVALID),
        (CompletionBody, {"prompt": []}, "prompt", INVALID),
        (CompletionBody, {"prompt": [-1]}, "prompt[0]", INVALID),
        (EmbeddingsBody, {"encoding_format": "hex"}, "encoding_format", INVALID),
        (EmbeddingsBody, {"input": {"a": 1}}, "input", INVALID),
        (RerankBody, {"documents": [5]}, "documents[0]", INVALID),
        (EmbeddingsBody, {"input": ["a"] * 2049}, "input", INVALID),
        (EmbeddingsBody, {"input": [1] * (2**20 + 1)}, "input", INVALID),
        (EmbeddingsBody, {"input": [None] * 100_000}, "input[0]", INVALID),
        (ChatBody, {"messages": [{}] * 100_000}, "messages[0].role", "missing_required_parameter"),
        (ChatBody, {"logit_bias": {str(n): 1 for n in range(3000)}}, "logit_bias", INVALID),
        (RerankBody, {"documents": [5] * 100_000}, "documents[0]", INVALID),
        (RerankBody, {"documents": ["a"] * 2049}, "documents", INVALID),
        (RerankBody, {"top_n": 0}, "top_n", INVALID),
    ],
)
async def test_the_field_that_is_wrong_is_named(
    kind: type[BaseModel], more: dict[str, Any], param: str, code: str
) -> None:
    base = {ChatBody: CHAT, CompletionBody: COMPLETION, EmbeddingsBody: EMBEDDINGS, RerankBody: RERANK}[kind]
    with pytest.raises(GatewayError) as met:
        await read(kind, json.dumps({**base, **more}).encode())
    assert (met.value.status, met.value.param, met.value.code) == (400, param, code)
    assert param in met.value.message


async def test_a_misspelt_name_is_told_its_neighbour() -> None:
    with pytest.raises(GatewayError, match="Unrecognized request argument supplied: temprature") as met:
        await read(ChatBody, json.dumps({**CHAT, "temprature": 1}).encode())
    assert "did you mean temperature?" in met.value.message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "\xff"}', b'{"model": "m", "input": "\\ud800"}', b"[" * 100_000],
)
async def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(GatewayError) as met:
        await read(EmbeddingsBody, body)
    assert met.value.status == 400
    assert len(met.value.message) < 400


async def test_of_many_faults_none_is_told() -> None:
    with pytest.raises(GatewayError, match="too many faults") as met:
        await read(ChatBody, json.dumps({**CHAT, **{f"key{n}": 1 for n in range(200)}}).encode())
    assert len(met.value.message) < 100


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_numbers_that_are_none_are_refused(number: str) -> None:
    with pytest.raises(GatewayError):
        await read(ChatBody, json.dumps(CHAT)[:-1].encode() + f', "temperature": {number}}}'.encode())


@pytest.mark.parametrize(
    ("create", "kind"),
    [
        (openai.resources.chat.Completions.create, ChatBody),
        (openai.resources.Completions.create, CompletionBody),
        (openai.resources.Embeddings.create, EmbeddingsBody),
    ],
)
def test_every_parameter_of_the_official_client_is_known(create: Any, kind: type[BaseModel]) -> None:
    of_the_transport = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    assert set(inspect.signature(create).parameters) - of_the_transport - set(kind.model_fields) == set()


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody, EmbeddingsBody, RerankBody])
def test_the_documented_body_refers_to_nothing_outside(kind: type[BaseModel]) -> None:
    text = json.dumps(openapi_body(kind))
    assert "$ref" not in text
    assert '"model"' in text
