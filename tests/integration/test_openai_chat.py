"""Chat and completions through the official openai client: whole, streamed, cancelled, refused.

The model says the words of its prompt, so that every answer is known; a chat's prompt has the roles among them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from clients import Client
from tests.fakes.openai_clients import async_client, sync_client
from tests.fakes.parrot import add_parrot, wait_for_state

pytestmark = pytest.mark.integration

HELLO: list[Any] = [{"role": "user", "content": "hello world"}]
CALL = '<tool_call>{"name":"weather","arguments":{"city":"Rome"}}</tool_call>'
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LONG = 200_000  # words: the model says some ten thousand in a second


@pytest.fixture(scope="module")
def url(triton: Any, gateway: Any) -> str:
    add_parrot(triton)
    add_parrot(triton, "parrot_of_vllm", chat=False)
    return str(gateway.url)


TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {{ eos_token }}{% endfor %}{{ tools[0].function.name }}"


@pytest.fixture(scope="module")
def templated(triton: Any, url: str) -> str:
    """A model that takes text alone, as vLLM's do, with its template in its config."""
    config = (triton.repository / "parrot_of_vllm" / "config.pbtxt").read_text()
    for name, value in {"chat_template": TEMPLATE, "eos_token": "END "}.items():
        config += f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'
    triton.add("templated", config, {"model.py": triton.repository / "parrot_of_vllm" / "1" / "model.py"})
    return "templated"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with sync_client(url) as connected:
        yield connected


class TestChat:
    def test_an_answer_comes_whole(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="parrot", messages=HELLO, max_completion_tokens=4)
        assert answer.object == "chat.completion"
        assert answer.model == "parrot"
        assert answer.system_fingerprint == "parrot/1"
        assert answer._request_id
        assert answer.choices[0].message.content == "user hello world user"
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)

    def test_or_in_pieces(self, client: openai.OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=3, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        texts = [chunk.choices[0].delta.content for chunk in chunks]
        assert [text for text in texts if text] == ["user", " hello", " world"]
        assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"]
        assert {chunk.id for chunk in chunks} == {chunks[0].id}
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert {chunk.usage for chunk in chunks} == {None}

    def test_a_stream_tells_its_usage_when_asked(self, client: openai.OpenAI) -> None:
        options: Any = {"stream_options": {"include_usage": True}, "stream": True}
        *chunks, last = client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=3, **options)
        assert last.choices == []
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 3)
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    def test_the_client_s_own_reader_of_streams(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(model="parrot", messages=HELLO, stop="world") as stream:
            answer = stream.get_final_completion()
        assert answer.choices[0].message.content == "user hello"

    @pytest.mark.parametrize("stop", ["world", ["x", "world"]])
    def test_a_stop_string_ends_it(self, client: openai.OpenAI, stop: Any) -> None:
        answer = client.chat.completions.create(model="parrot", messages=HELLO, stop=stop)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("user hello", "stop")

    def test_several_choices(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=2, n=3, seed=1)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert {choice.message.content for choice in answer.choices} == {"user hello"}
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)

    def test_several_choices_in_one_stream(self, client: openai.OpenAI) -> None:
        texts = {0: "", 1: "", 2: ""}
        reasons = []
        for chunk in client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=2, n=3, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
            reasons.append(chunk.choices[0].finish_reason)
        assert set(texts.values()) == {"user hello"}
        assert reasons.count("length") == 3

    def test_log_probabilities(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": "parrot", "messages": HELLO, "max_tokens": 2, "logprobs": True, "top_logprobs": 1}
        whole = client.chat.completions.create(**asked).choices[0].logprobs
        assert [(token.token, token.logprob) for token in whole.content] == [("user", -0.5), (" hello", -0.5)]
        assert [[top.token for top in token.top_logprobs] for token in whole.content] == [["?"], ["?"]]
        chunks = list(client.chat.completions.create(**asked, stream=True))
        told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
        assert [token.token for logprobs in told for token in logprobs.content] == ["user", " hello"]

    def test_a_schema_reaches_the_engine(self, client: openai.OpenAI) -> None:
        form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
        said = client.completions.create(
            model="parrot", prompt="sampling?", max_tokens=99, extra_body={"response_format": form}
        )
        assert '"guided_json": {"type": "array"}' in said.choices[0].text

    async def test_the_async_client(self, url: str) -> None:
        async with async_client(url) as client:
            answer = await client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=2)
            assert answer.choices[0].message.content == "user hello"
            stream = await client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=2, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(texts) == "user hello"


async def test_many_streams_at_a_time_are_not_mixed(url: str) -> None:
    async with async_client(url) as client:

        async def said(number: int) -> str:
            asked: Any = {"model": "parrot", "messages": [{"role": "user", "content": f"number {number}"}]}
            stream = await client.chat.completions.create(**asked, max_tokens=30, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        texts = await asyncio.gather(*(said(number) for number in range(48)))
    assert texts == [" ".join(["user", "number", str(number)] * 10) for number in range(48)]


ASKED: Any = {"model": "parrot", "messages": [{"role": "user", "content": CALL}], "tools": [WEATHER]}


class TestTools:
    def test_calls_are_read_out_of_the_answer(self, client: openai.OpenAI) -> None:
        choice = client.chat.completions.create(**ASKED, stop="weather").choices[0]
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name) == ("function", "weather")
        assert json.loads(call.function.arguments) == {"city": "Rome"}
        assert choice.message.content == "user "

    def test_and_out_of_a_stream(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(**ASKED, stop="weather") as stream:
            choice = stream.get_final_completion().choices[0]
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == ["weather"]
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Rome"}

    def test_tools_reach_the_template(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model="parrot", messages=HELLO, tools=[WEATHER], max_tokens=4)
        assert answer.choices[0].message.content == "user hello world weather"

    def test_a_template_in_the_config_is_rendered_here(self, client: openai.OpenAI, templated: str) -> None:
        answer = client.chat.completions.create(model=templated, messages=HELLO * 2, tools=[WEATHER], max_tokens=9)
        assert answer.choices[0].message.content == "user hello world END user hello world END weather"

    def test_none_leaves_them_out(self, client: openai.OpenAI) -> None:
        choice = client.chat.completions.create(**ASKED, tool_choice="none", max_tokens=3).choices[0]
        assert choice.message.content == f"user {CALL} user"
        assert choice.message.tool_calls is None


class TestCompletions:
    def test_a_text_goes_on(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="parrot", prompt="one two", max_tokens=3)
        assert answer.object == "text_completion"
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two one", "length")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 5

    def test_many_prompts_and_choices_in_order(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="parrot", prompt=["a", "b c"], max_tokens=1, n=2, echo=True)
        assert [choice.text for choice in answer.choices] == ["aa", "aa", "b cb", "b cb"]
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)

    def test_streamed(self, client: openai.OpenAI) -> None:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = client.completions.create(model="parrot", prompt="a b", max_tokens=3, echo=True, **options)
        assert [chunk.choices[0].text for chunk in chunks] == ["a ba", " b", " a"]
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "length"]
        assert last.usage.completion_tokens == 3

    def test_log_probabilities(self, client: openai.OpenAI) -> None:
        logprobs = client.completions.create(model="parrot", prompt="a b", max_tokens=2, logprobs=1).choices[0].logprobs
        assert logprobs is not None
        assert (logprobs.tokens, logprobs.token_logprobs) == (["a", " b"], [-0.5, -0.5])
        assert (logprobs.top_logprobs, logprobs.text_offset) == ([{"?": -0.1}, {"?": -0.1}], [0, 1])

    def test_a_model_of_vllm(self, client: openai.OpenAI) -> None:
        assert client.completions.create(model="parrot_of_vllm", prompt="a", max_tokens=1).choices[0].text == "a"


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "kind", "code", "param"),
        [
            ({"model": "parot"}, openai.NotFoundError, "model_not_found", "model"),
            ({"temperature": 9}, openai.BadRequestError, "invalid_value", "temperature"),
            ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter", "temprature"),
            ({"logit_bias": {"1": 1}}, openai.BadRequestError, "unsupported_parameter", "logit_bias"),
            ({"prompt": "too long: 9 tokens"}, openai.BadRequestError, "context_length_exceeded", None),
            ({"prompt": "invalid: no"}, openai.BadRequestError, None, None),
            ({"prompt": "queue full: 5 wait"}, openai.RateLimitError, "queue_full", None),
            ({"prompt": [1, 2]}, openai.BadRequestError, "tokens_not_supported", "prompt"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_failures_are_the_client_s_own(
        self,
        client: openai.OpenAI,
        asked: dict[str, Any],
        kind: type[openai.APIStatusError],
        code: Any,
        param: Any,
        stream: bool,
    ) -> None:
        with pytest.raises(kind) as met:
            client.completions.create(**{"model": "parrot", "prompt": "a", "stream": stream, **asked})
        assert met.value.code == code
        if param is not None:
            assert met.value.param == param
        assert met.value.body.keys() == {"message", "type", "param", "code"}

    def test_a_model_without_a_template_takes_no_chat(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model="parrot_of_vllm", messages=HELLO)

    def test_a_picture_is_no_text(self, client: openai.OpenAI) -> None:
        parts: Any = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
        with pytest.raises(openai.BadRequestError, match="text alone") as met:
            client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": parts}])
        assert met.value.param == "messages[0].content[0]"


class TestLeaving:
    @pytest.fixture
    def server(self, triton: Any) -> Iterator[Client]:
        with Client(triton.grpc_url) as connected:
            yield connected

    def test_a_closed_stream_is_cancelled(self, client: openai.OpenAI, server: Client) -> None:
        before = wait_for_state(server, running=0)["cancelled"]
        stream = client.chat.completions.create(model="parrot", messages=HELLO, max_tokens=LONG, stream=True)
        assert len([next(iter(stream)) for _ in range(5)]) == 5
        stream.close()
        assert wait_for_state(server, running=0, cancelled=before + 1)["cancelled"] == before + 1

    def test_so_are_all_choices_of_one(self, client: openai.OpenAI, server: Client) -> None:
        before = wait_for_state(server, running=0)["cancelled"]
        stream = client.completions.create(model="parrot", prompt="a b", max_tokens=LONG, n=3, stream=True)
        next(iter(stream))
        stream.close()
        assert wait_for_state(server, running=0, cancelled=before + 3)["running"] == 0

    def test_a_timeout_of_the_client(self, client: openai.OpenAI, server: Client) -> None:
        before = wait_for_state(server, running=0)["cancelled"]
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).completions.create(model="parrot", prompt="a b", max_tokens=LONG)
        assert wait_for_state(server, running=0, cancelled=before + 1)["cancelled"] == before + 1

    async def test_a_cancelled_task(self, url: str, server: Client) -> None:
        before = wait_for_state(server, running=0)["cancelled"]
        async with async_client(url) as client:
            asked = client.completions.create(model="parrot", prompt="a b", max_tokens=LONG)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asked, 0.5)
        assert wait_for_state(server, running=0, cancelled=before + 1)["cancelled"] == before + 1

    def test_a_deadline_of_the_request(self, client: openai.OpenAI, server: Client) -> None:
        before = wait_for_state(server, running=0)["cancelled"]
        with pytest.raises(openai.APIStatusError) as met:
            client.completions.create(
                model="parrot", prompt="a b", max_tokens=LONG, extra_headers={"X-Request-Timeout": "0.3"}
            )
        assert (met.value.status_code, met.value.code) == (504, "deadline_exceeded")
        assert wait_for_state(server, running=0, cancelled=before + 1)["cancelled"] == before + 1

    def test_in_the_middle_of_a_stream_a_deadline_is_an_error(self, client: openai.OpenAI) -> None:
        stream = client.completions.create(
            model="parrot", prompt="a b", max_tokens=LONG, stream=True, extra_headers={"X-Request-Timeout": "0.3"}
        )
        with pytest.raises(openai.APIError) as met:
            list(stream)
        assert met.value.code == "deadline_exceeded"
