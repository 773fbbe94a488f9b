"""Sampling parameters mean what they mean to vLLM, and a wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.generate_code import module

sampling = module("generate_sampling")
Refused = module("generate_refusal").Refused
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
WITH_REFERENCE = {
    "$defs": {"a/b": {"type": "string"}},
    "items": {"$ref": "#/$defs/a~1b"},
    "properties": {"$ref": SCHEMA},
}


def read(**given: Any) -> Any:
    return sampling.read_sampling(json.dumps(given))


def test_defaults_are_those_of_vllm() -> None:
    asked = read()
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.top_k, asked.seed) == (16, 1.0, 1.0, 0, None)
    assert asked == sampling.Sampling()


@pytest.mark.parametrize(
    ("given", "field", "due"),
    [
        ({"max_tokens": None}, "max_tokens", None),
        ({"temperature": 0}, "greedy", True),
        ({"temperature": 1e-7}, "greedy", True),
        ({"temperature": None}, "greedy", False),
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 10**30}, "top_k", 2**31 - 1),
        ({"min_p": 5e-324}, "min_p", 0.0),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop_token_ids": [5, 5, 7]}, "stop_token_ids", frozenset({5, 7})),
        ({"logprobs": 0}, "logprobs", True),
        ({"logprobs": None}, "logprobs", False),
        ({"seed": -1}, "seed", 2**32 - 1),
        ({"lora_name": "polite"}, "lora", "polite"),
        ({"guided_json": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", json.dumps(SCHEMA)),
        ({"json_schema": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"response_format": {"type": "text"}}, "json_schema", None),
        ({"response_format": {"type": "json_object"}}, "json_schema", sampling.ANY_JSON),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            "json_schema",
            json.dumps(SCHEMA),
        ),
        ({"guided_regex": "[0-9]+"}, "regex", "[0-9]+"),
        ({"guided_json": WITH_REFERENCE}, "json_schema", json.dumps(WITH_REFERENCE)),
        ({"n": 1}, "max_tokens", 16),
    ],
)
def test_what_is_read(given: dict[str, Any], field: str, due: Any) -> None:
    assert getattr(read(**given), field) == due


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temprature": 1}, "did you mean temperature?"),
        ({"temperature": "hot"}, "temperature: got 'hot', expected a number, 0 or more"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p: got 0, expected a number, more than 0 to 1"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": 5e-324}, "top_p"),
        ({"temperature": 1e39}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"repetition_penalty": 5e-324}, "repetition_penalty"),
        ({"stop_token_ids": [2**63]}, "stop_token_ids"),
        ({"max_tokens": 0}, "max_tokens: got 0, expected a whole number, 1 or more"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids"),
        ({"seed": "a"}, "seed"),
        ({"n": 2}, "n: got 2"),
        ({"logprobs": 5}, "logprobs"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": [1]}, "guided_json"),
        ({"guided_json": {"type": "nonsense"}}, "guided_json: type: got 'nonsense', expected a JSON schema"),
        ({"guided_json": {"properties": {"a": {"type": 7}}}}, "properties/a/type"),
        ({"guided_json": {"$ref": "#/nowhere"}}, "$ref"),
        ({"guided_json": json.loads('{"a":' * 200 + "{}" + "}" * 200)}, "more than 64 levels"),
        ({"guided_json": {"items": {"$ref": "http://elsewhere/schema"}}}, "$ref"),
        ({"guided_json": {"type": "string", "pattern": "("}}, "pattern: got '('"),
        ({"guided_regex": "["}, "guided_regex"),
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "one of them"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"ignore_eos": 1}, "ignore_eos"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=r"^invalid: ") as caught:
        read(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize("document", ["", "{", "[]", "7", '{"temperature": NaN}', '{"temperature": Infinity}'])
def test_what_is_no_object_of_numbers_is_refused(document: str) -> None:
    with pytest.raises(Refused, match=r"^invalid: "):
        sampling.read_sampling(document)
