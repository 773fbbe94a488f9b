"""The official openai client and a real engine: a tiny Llama of random weights behind Triton."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest

from clients import Client
from tests.fakes import tiny_llama
from tests.fakes.openai_clients import sync_client
from tests.gateway_fixtures import running_gateway, wait_ready
from tests.integration.generate_asks import metric

pytest.importorskip("openvino_genai", reason="the extra llm is not installed")
pytest.importorskip("optimum.intel", reason="the converter is not installed: see export/llm/convert.py")

pytestmark = pytest.mark.integration

MODEL = "openai_llama"
CHAT: list[Any] = [{"role": "user", "content": "The parcel arrived"}]
GREEDY: Any = {"model": MODEL, "temperature": 0, "max_tokens": 12}
# The likeliest tokens of random weights would fill JSON with white space, which every schema allows.
HELD: Any = {"model": MODEL, "temperature": 1, "seed": 3, "max_tokens": 400}
SCHEMA: Any = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["calm", "angry"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(triton: Any) -> Iterator[openai.OpenAI]:
    tiny_llama.write_model(triton.repository, MODEL, {"max_num_batched_tokens": "256", "cache_size_gb": "1"})
    triton.load(MODEL)
    with running_gateway(triton, repository=triton.repository) as gateway, sync_client(gateway.url) as connected:
        wait_ready(gateway)
        yield connected
    triton.unload(MODEL)


def test_a_chat_streams_what_it_says_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=CHAT, **GREEDY)
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = client.chat.completions.create(messages=CHAT, **GREEDY, **options)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content != ""
    assert last.usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    assert (chunks[-1].choices[0].finish_reason, whole.choices[0].finish_reason) == ("length", "length")


def test_a_chat_without_a_limit_goes_on_past_the_engine_s_own(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=CHAT, temperature=0, stop="\x00")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 16


def test_a_completion_is_what_the_engine_says(client: openai.OpenAI, triton: Any) -> None:
    with Client(triton.grpc_url) as direct:
        due = direct.generate(MODEL, "Nobody had", max_tokens=12, temperature=0)
    answer = client.completions.create(prompt="Nobody had", **GREEDY)
    assert answer.choices[0].text == due.text
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (due.input_tokens, due.output_tokens)


def test_a_prompt_may_come_as_tokens(client: openai.OpenAI) -> None:
    tokens = tiny_llama.tokenizer()("Nobody had")["input_ids"]
    as_text = client.completions.create(prompt="Nobody had", **GREEDY)
    assert client.completions.create(prompt=tokens, **GREEDY).choices[0].text == as_text.choices[0].text
    both = client.completions.create(prompt=[tokens, tokens[1:]], **GREEDY)
    assert {choice.text for choice in both.choices} == {as_text.choices[0].text}
    with pytest.raises(openai.BadRequestError, match="no such token"):
        client.completions.create(prompt=[10**6], **GREEDY)


def test_a_stop_string_is_not_part_of_the_text(client: openai.OpenAI) -> None:
    text = client.completions.create(prompt="Nobody had", **GREEDY).choices[0].text
    stop = text[len(text) // 2 :][:3]
    choice = client.completions.create(prompt="Nobody had", **GREEDY, stop=stop).choices[0]
    assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")


def test_a_seed_says_it_again_and_choices_differ(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": CHAT, "max_tokens": 12, "temperature": 1.5, "seed": 5, "n": 3}
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1


def test_log_probabilities_are_of_each_token(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=CHAT, logprobs=True, **GREEDY)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert answer.usage is not None
    assert len(logprobs.content) == answer.usage.completion_tokens
    assert all(token.logprob <= 0 for token in logprobs.content)


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA}}
    answer = client.chat.completions.create(messages=CHAT, **HELD, response_format=form)
    assert json.loads(answer.choices[0].message.content or "")["mood"] in ("calm", "angry")


class Mood(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    mood: Literal["calm", "angry"]


def test_the_client_s_own_types_are_kept(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(messages=CHAT, **HELD, response_format=Mood)
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Mood)


def test_any_json_is_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=CHAT, **HELD, response_format={"type": "json_object"})
    choice = answer.choices[0]
    assert (choice.message.content or "").lstrip().startswith("{")
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content or ""), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(client: openai.OpenAI, triton: Any, stream: bool) -> None:
    def counted(name: str) -> float:
        return metric(triton.server.metrics_url, f"generate_requests_{name}", MODEL)

    before = counted("cancelled_total")
    asked: Any = {"model": MODEL, "messages": CHAT, "temperature": 0, "extra_body": {"ignore_eos": True}}
    if stream:
        answer = client.chat.completions.create(**asked, stream=True)
        next(iter(answer))
        assert wait_for(lambda: counted("running") == 1)
        answer.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(**asked)
    assert wait_for(lambda: counted("cancelled_total") == before + 1)
    assert wait_for(lambda: counted("running") == 0)


def wait_for(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    ends_s = time.monotonic() + within_s
    while not condition() and time.monotonic() < ends_s:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI, stream: bool) -> None:
    tool: Any = {"type": "function", "function": {"name": "report", "parameters": SCHEMA}}
    asked: Any = {**HELD, "messages": CHAT, "tools": [tool], "tool_choice": "required"}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "report"
    assert json.loads(call.function.arguments)["mood"] in ("calm", "angry")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context(client: openai.OpenAI, stream: bool) -> None:
    long: list[Any] = [{"role": "user", "content": "word " * 100_000}]
    with pytest.raises(openai.BadRequestError) as met:
        client.chat.completions.create(model=MODEL, messages=long, max_tokens=5, stream=stream)
    assert met.value.code == "context_length_exceeded"


def test_what_the_engine_refuses_is_the_request_s_fault(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="pirate"):
        client.chat.completions.create(messages=CHAT, **GREEDY, extra_body={"lora": "pirate"})
