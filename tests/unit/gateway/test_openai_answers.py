"""The shapes of answers: events, log-probabilities, vectors, messages; and several texts as one stream."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from clients.generation import Piece, TokenLogprob
from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.caller import ANONYMOUS
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError
from gateway.numbers import numbers
from gateway.openai_api.batches import ask_in_batches
from gateway.openai_api.bodies import ChatBody, Message
from gateway.openai_api.chat_prompt import chat_prompt, template_message
from gateway.openai_api.choices import AT_ONCE, Run, TokenCounts, Usage, pieces_of, whole_texts
from gateway.openai_api.embeddings import base64_vectors, shortened
from gateway.openai_api.events import DONE, Events
from gateway.openai_api.logprobs import chat_logprobs, completion_logprobs
from gateway.request_info import new_info

HEAD: dict[str, object] = {"id": "x", "model": 'a"b'}


def parsed(event: str) -> Any:
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    return json.loads(event.removeprefix("data: "))


class TestEvents:
    def test_an_event_is_one_choice(self) -> None:
        event = Events(HEAD, with_usage=False).choice(2, '"text":"\\n"', finish="stop")
        choice = {"index": 2, "text": "\n", "logprobs": None, "finish_reason": "stop"}
        assert parsed(event) == {"id": "x", "model": 'a"b', "choices": [choice]}

    def test_with_usage_each_has_one_and_the_last_says_it(self) -> None:
        events = Events(HEAD, with_usage=True)
        assert parsed(events.choice(0, '"text":""'))["usage"] is None
        last, done, _ = events.last(Usage(3, 4)).split("\n\n")
        assert parsed(last + "\n\n")["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        assert parsed(last + "\n\n")["choices"] == []
        assert f"{done}\n\n" == DONE

    def test_without_usage_the_last_is_the_end(self) -> None:
        assert Events(HEAD, with_usage=False).last(Usage(3, 4)) == DONE


class TestLogprobs:
    TOKENS = (
        TokenLogprob("é", -0.5, 1, (TokenLogprob("a", -0.1, 2), TokenLogprob("é", -0.5, 1))),
        TokenLogprob(" b", float("-inf"), 3),
    )

    def test_of_a_chat(self) -> None:
        first, second = chat_logprobs(self.TOKENS, 1)["content"]
        assert first == {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "a", "logprob": -0.1, "bytes": [97]}],
        }
        assert second["logprob"] == -9999.0

    def test_of_a_completion(self) -> None:
        assert completion_logprobs(self.TOKENS, 2, offset=10) == {
            "tokens": ["é", " b"],
            "token_logprobs": [-0.5, -9999.0],
            "top_logprobs": [{"a": -0.1, "é": -0.5}, {}],
            "text_offset": [10, 11],
        }
        assert completion_logprobs(self.TOKENS, 0)["top_logprobs"] is None


class TestVectors:
    VECTORS = np.array([[3.0, 4.0, 12.0], [0.1, -1e-30, 1 / 3], [0.0, 0.0, 1.0]], np.float32)

    def test_numbers_come_back_bit_for_bit(self) -> None:
        random = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
        assert np.array_equal(np.array([json.loads(v) for v in numbers(random)], np.float32), random)
        read = [np.frombuffer(base64.b64decode(json.loads(v)), "<f4") for v in base64_vectors(random[:, ::2])]
        assert np.array_equal(np.array(read), random[:, ::2])

    def test_fewer_dimensions_have_length_one_again(self) -> None:
        short = shortened(self.VECTORS, 2)
        np.testing.assert_allclose(short, [[0.6, 0.8], [1.0, 0.0], [0.0, 0.0]], atol=1e-6)
        assert short.dtype == np.float32


def message(**fields: Any) -> Message:
    return Message.model_validate(fields)


class TestMessages:
    def test_parts_become_one_text(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        assert template_message(message(role="user", content=parts), 0) == {"role": "user", "content": "a\nb"}

    def test_a_developer_is_the_system(self) -> None:
        assert template_message(message(role="developer", content="x"), 0)["role"] == "system"

    def test_arguments_of_calls_are_objects(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        made = template_message(message(role="assistant", tool_calls=[call]), 0)
        assert made["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}, "id": "c"}]
        assert made["content"] == ""

    def test_other_keys_are_the_template_s(self) -> None:
        made = template_message(message(role="tool", content="22", tool_call_id="c", reasoning_content="hm"), 0)
        assert made == {"role": "tool", "content": "22", "tool_call_id": "c", "reasoning_content": "hm"}

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}, "messages[3].content[0]"),
            ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "messages[3].tool_calls"),
        ],
    )
    def test_what_no_template_takes(self, fields: dict[str, Any], param: str) -> None:
        with pytest.raises(GatewayError) as met:
            template_message(message(role="assistant", **fields), 3)
        assert (met.value.status, met.value.param) == (400, param)

    def test_the_body_keeps_them(self) -> None:
        body = ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "a", "extra": [1]}]})
        assert template_message(body.messages[0], 0)["extra"] == [1]


class TestPrompts:
    """What a model is asked: a chat where it takes one, else the text that its template makes."""

    TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}  # noqa: RUF012

    def asked(self, template: str | None = None, *, takes_chat: bool = False, **more: Any) -> Any:
        inputs = [TensorSpec("text_input", "BYTES", (1,))] + [TensorSpec("chat", "BYTES", (1,), True)] * takes_chat
        parameters = {} if template is None else {"chat_template": template}
        served = ServedModel("m", "1", ("1",), "generate", ModelSignature(tuple(inputs), ()), parameters=parameters)
        document = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
        return chat_prompt(ChatBody.model_validate(document), served)

    def test_a_chat_goes_on_as_it_is(self) -> None:
        asked = self.asked(takes_chat=True, tools=[self.TOOL], chat_template_kwargs={"a": 1})
        assert asked == {
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [self.TOOL],
            "template_variables": {"a": 1},
        }

    def test_a_template_is_rendered(self) -> None:
        assert self.asked("{{ messages[0].content }}!{{ tools[0].function.name }}", tools=[self.TOOL]) == "hi!f"
        assert self.asked("{{ messages[0].content }}{{ tools }}", tools=[self.TOOL], tool_choice="none") == "hiNone"

    def test_a_template_without_tools_refuses_them(self) -> None:
        with pytest.raises(GatewayError, match="knows no tools") as met:
            self.asked("{{ messages[0].content }}", tools=[self.TOOL])
        assert met.value.param == "tools"

    def test_no_template_is_no_chat(self) -> None:
        with pytest.raises(GatewayError, match="no chat template"):
            self.asked()


class Texts:
    """Runs that say their name's letters; how many are open, and how many were at most."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0

    def run(self, name: str, fails: bool = False, waits: bool = False) -> Run:
        async def say() -> AsyncGenerator[Piece, None]:
            self.open += 1
            self.most = max(self.most, self.open)
            try:
                for count, letter in enumerate(name, 1):
                    yield Piece(letter, "stop" if count == len(name) else None, 2, count)
                    await asyncio.sleep(0)
                if waits:
                    await asyncio.sleep(60)
                if fails:
                    raise GatewayError("broken", status=500)
            finally:
                self.open -= 1

        return say


class TestChoices:
    async def test_each_text_is_whole_and_in_order(self) -> None:
        texts = Texts()
        names = [f"text{i}" for i in range(40)]
        assert [text.text for text in await whole_texts([texts.run(name) for name in names])] == names
        assert (texts.open, texts.most) == (0, AT_ONCE)

    async def test_one_text_needs_no_tasks(self) -> None:
        before = len(asyncio.all_tasks())
        async for _ in pieces_of([Texts().run("abc")]):
            assert len(asyncio.all_tasks()) == before

    @pytest.mark.parametrize("others", [0, 3])
    async def test_leaving_ends_all(self, others: int) -> None:
        texts = Texts()
        pieces = pieces_of([texts.run("abc", waits=True)] + [texts.run("d", waits=True)] * others)
        assert (await anext(pieces))[1].text == "a"
        await asyncio.wait_for(pieces.aclose(), 10)
        assert texts.open == 0

    @pytest.mark.parametrize("others", [0, 3])
    async def test_one_failure_ends_all(self, others: int) -> None:
        texts = Texts()
        with pytest.raises(GatewayError, match="broken"):
            await asyncio.wait_for(
                whole_texts([texts.run("a", fails=True)] + [texts.run("b", waits=True)] * others), 10
            )
        assert texts.open == 0

    async def test_a_text_that_the_model_gave_up_on_is_a_failure(self) -> None:
        async def given_up() -> AsyncGenerator[Piece, None]:
            yield Piece("a", "cancelled", 1, 1)

        with pytest.raises(GatewayError, match="stopped before") as met:
            await whole_texts([given_up])
        assert met.value.status == 503

    def test_a_prompt_counts_once(self) -> None:
        counts = TokenCounts(2)
        for index in range(4):
            counts.saw(index, Piece("", None, 5, 1))
            counts.saw(index, Piece("", "stop", 5, 3))
        assert counts.usage() == Usage(10, 12)

    def test_what_is_not_counted_is_not_told(self) -> None:
        counts = TokenCounts(1)
        counts.saw(0, Piece("a", "stop"))
        assert counts.usage() is None


class TestBatches:
    """Texts cut into what a model takes at a time, and its answers put together."""

    class Lengths:
        """A door behind which each text is answered with its length; notes the batches."""

        def __init__(self, lose: int = 0) -> None:
            self.batches: list[int] = []
            self.lose = lose

        async def infer(self, caller: Any, model: str, inputs: Any, *, request: Any, outputs: Any) -> Any:
            texts = inputs["text"]
            self.batches.append(len(texts))
            await asyncio.sleep(0.001 * (3 - len(self.batches)) if len(self.batches) < 3 else 0)
            lengths = np.array([[len(text)] for text in texts.ravel()], np.float32)
            return {"score": lengths[self.lose :] if texts.ndim == 2 else lengths[0]}

    async def ask(self, door: Any, count: int, max_batch_size: int) -> Any:
        signature = ModelSignature((TensorSpec("text", "BYTES", (1,)),), (), max_batch_size)
        served = ServedModel("m", "1", ("1",), "rerank", signature)
        texts = [b"x" * n for n in range(count)]
        return await ask_in_batches(door, ANONYMOUS, "m", served, {"text": texts}, "score", new_info())

    @pytest.mark.parametrize(
        ("count", "size", "batches"), [(3, 4, [3]), (4, 4, [4]), (9, 4, [4, 4, 1]), (2, 1, [1, 1]), (3, 0, [1, 1, 1])]
    )
    async def test_answers_are_in_the_order_of_the_texts(self, count: int, size: int, batches: list[int]) -> None:
        door = self.Lengths()
        assert (await self.ask(door, count, size)).ravel().tolist() == list(range(count))
        assert sorted(door.batches) == sorted(batches)

    async def test_a_row_that_is_lost_is_noticed(self) -> None:
        with pytest.raises(GatewayError, match="another number of rows") as met:
            await self.ask(self.Lengths(lose=1), 9, 4)
        assert met.value.status == 502
