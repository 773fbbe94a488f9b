"""The body of /generate and /stream: what it may hold, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.rest.generate import read_wish

HELLO = [{"role": "user", "content": "hello"}]


def test_a_prompt_with_sampling() -> None:
    wish = read_wish({"model": "chat", "prompt": "once", "max_tokens": 5, "stop": "."})
    assert (wish.model, wish.prompt) == ("chat", "once")
    assert wish.sampling == {"max_tokens": 5, "stop": ["."]}


def test_a_chat() -> None:
    wish = read_wish({"messages": HELLO, "tools": None})
    assert (wish.model, wish.prompt) == ("", {"messages": HELLO})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "messages": HELLO}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": "a"}, "messages"),
        ({"messages": ["a"]}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages"),
        ({"prompt": "a", "promt": "b"}, "promt"),
        ({"prompt": "a", "stop": 5}, "stop"),
        ({"prompt": "a", "stop_token_ids": 5}, "stop_token_ids"),
        ({"prompt": "a", "json_schema": []}, "json_schema"),
        ({"prompt": "a", "extra": 5}, "extra"),
        ({"prompt": "a", "model": 5}, "model"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read_wish(body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 1e400},
        {"temperature": -1},
        {"top_p": 1.5},
        {"stop": [""]},
        {"stop": [5]},
        {"stop_token_ids": ["a"]},
        {"stop_token_ids": [-1]},
        {"ignore_eos": 1},
        {"lora": 5},
    ],
)
def test_sampling_out_of_range_is_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        read_wish({"prompt": "a", **sampling})
    assert caught.value.status == 400


def test_a_schema_of_endless_depth_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"properties": {"a": schema}}
    with pytest.raises(GatewayError, match="cannot be read") as caught:
        read_wish({"prompt": "a", "json_schema": schema})
    assert caught.value.got == "lists or objects nested too deep"


def test_an_unknown_field_is_told_the_near_one() -> None:
    with pytest.raises(GatewayError, match="max_token") as caught:
        read_wish({"prompt": "a", "max_token": 5})
    assert caught.value.fix == "did you mean max_tokens?"
