"""What OpenAI's parameters become for a model's engine."""

from typing import Any

import pytest

from conch.tensor_spec import ModelSignature
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError
from gateway.openai_api.bodies import ChatBody, CompletionBody
from gateway.openai_api.sampling import chat_sampling, completion_sampling, for_choice


def served(backend: str = "python", **parameters: str) -> ServedModel:
    return ServedModel("m", "1", ("1",), "generate", ModelSignature((), ()), backend=backend, parameters=parameters)


def chat(**more: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more})


def completion(**more: Any) -> CompletionBody:
    return CompletionBody.model_validate({"model": "m", "prompt": "hi", **more})


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "title": name}}}


def test_a_chat_without_a_limit_may_fill_the_context() -> None:
    assert chat_sampling(chat(), served()) == {"max_tokens": None}
    assert chat_sampling(chat(), served("vllm", context_length="512")) == {"max_tokens": 512}


def test_a_completion_without_a_limit_is_short() -> None:
    assert completion_sampling(completion(), served()) == {"max_tokens": 16}


def test_the_newer_name_of_the_limit_wins() -> None:
    assert chat_sampling(chat(max_tokens=9, max_completion_tokens=4), served())["max_tokens"] == 4


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": []}, {}),
        ({"temperature": 0, "top_p": 0.5, "seed": 7}, {"temperature": 0, "top_p": 0.5, "seed": 7}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": False}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"guided_json": {"type": "object"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}},
            {"guided_json": {"type": "array"}},
        ),
        ({"guided_json": {"type": "string"}, "lora": "pirate"}, {"guided_json": {"type": "string"}, "lora": "pirate"}),
        ({"tools": [tool("f")], "tool_choice": "auto"}, {}),
    ],
)
def test_parameters_of_a_chat(given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert chat_sampling(chat(max_tokens=1, **given), served()) == {"max_tokens": 1, **sent}


def test_a_tool_that_must_be_called_holds_the_answer_to_its_schema() -> None:
    tools = [tool("a"), tool("b")]
    one = {"type": "function", "function": {"name": "b"}}
    schema = chat_sampling(chat(tools=tools, tool_choice=one), served())["guided_json"]
    assert schema["properties"]["name"] == {"type": "string", "enum": ["b"]}
    assert schema["properties"]["arguments"] == {"type": "object", "title": "b"}
    either = chat_sampling(chat(tools=tools, tool_choice="required"), served())["guided_json"]
    assert [each["properties"]["name"]["enum"] for each in either["anyOf"]] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"response_format": {"type": "json_object"}, "guided_json": {}}, "guided_json", "invalid_value"),
    ],
)
def test_what_a_chat_cannot_have(given: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(GatewayError) as met:
        chat_sampling(chat(**given), served())
    assert (met.value.status, met.value.param, met.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("given", "param"),
    [({"suffix": "s"}, "suffix"), ({"best_of": 3}, "best_of"), ({"echo": True, "logprobs": 1}, "echo")],
)
def test_what_a_completion_cannot_have(given: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as met:
        completion_sampling(completion(**given), served())
    assert (met.value.param, met.value.code) == (param, "unsupported_parameter")


def test_what_asks_for_nothing_is_ignored() -> None:
    asked = completion(best_of=2, n=2, suffix="", logit_bias={}, user="u")
    assert completion_sampling(asked, served()) == {"max_tokens": 16}


def test_vllm_knows_biases() -> None:
    assert chat_sampling(chat(logit_bias={"5": 1}), served("vllm"))["logit_bias"] == {"5": 1}


def test_choices_of_one_seed_differ() -> None:
    assert [for_choice({"seed": 7, "top_k": 1}, choice)["seed"] for choice in range(3)] == [7, 8, 9]
    assert for_choice({"top_k": 1}, 2) == {"top_k": 1}
