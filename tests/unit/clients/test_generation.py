"""What is asked of a model that generates text, and what is read from its responses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from clients.address import parse_address
from clients.failures import explain
from clients.generation import Generated, Piece, TokenLogprob, chat_document, sampling_parameters, whole
from clients.generation_wire import TextRequest, piece_reader
from clients.request import InferRequest, Operation, Question, build_request
from conch.errors import ClientError, ContextTooLong, InferenceFailed, InvalidInput, QueueFull
from conch.tensor_spec import ModelSignature, TensorSpec
from tests.fakes.client_transports import Refused

OPTIONAL = ("stream", "exclude_input_in_output", "return_finish_reason", "return_logprobs", "return_num_output_tokens")


def signature(*names: str) -> ModelSignature:
    flags = tuple(TensorSpec(name, "BOOL", (1,), optional=True) for name in OPTIONAL)
    texts = tuple(TensorSpec(name, "BYTES", (1,), optional=name != "text_input") for name in names)
    return ModelSignature(texts + flags, (TensorSpec("text_output", "BYTES", (-1,)),), 0)


OURS = signature("text_input", "sampling_parameters", "chat")
VLLM = signature("text_input", "sampling_parameters")


class TestSampling:
    def test_what_is_not_given_is_left_to_the_model(self) -> None:
        assert sampling_parameters(max_tokens=5, temperature=None) == {"max_tokens": 5}

    def test_names_are_the_engines(self) -> None:
        sent = sampling_parameters(stop="END", stop_token_ids=(1, 2), json_schema={"type": "object"}, lora="pirate")
        assert sent == {
            "stop": ["END"],
            "stop_token_ids": [1, 2],
            "guided_json": {"type": "object"},
            "lora": "pirate",
        }

    def test_what_an_engine_alone_knows_goes_as_it_is(self) -> None:
        assert sampling_parameters(seed=1, extra={"best_of": 2}) == {"seed": 1, "best_of": 2}

    def test_what_it_made_can_be_given_again(self) -> None:
        made = sampling_parameters(stop="a", logprobs=2, json_schema={})
        assert sampling_parameters(extra=made) == made

    def test_an_unknown_name_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(InvalidInput, match="no sampling parameter temprature") as met:
            sampling_parameters(temprature=1)  # type: ignore[typeddict-item]
        assert met.value.fix == "did you mean temperature?"

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"max_tokens": 0}, "a whole number from 1"),
            ({"max_tokens": 1.5}, "a whole number from 1"),
            ({"max_tokens": True}, "a whole number from 1"),
            ({"temperature": -1}, "a number from 0"),
            ({"temperature": float("nan")}, "a number from 0"),
            ({"top_p": 1.1}, "a number from 0 to 1"),
            ({"seed": "x"}, "a whole number"),
            ({"stop": ""}, "a text that is not empty, or a list of such"),
            ({"stop": [1]}, "a text that is not empty, or a list of such"),
            ({"stop_token_ids": [-1]}, "a list of token ids, whole numbers from 0"),
            ({"ignore_eos": 1}, "True or False"),
            ({"json_schema": "{}"}, "a JSON schema as a mapping"),
            ({"lora": ""}, "the name of one of the model's adapters"),
        ],
    )
    def test_a_value_that_cannot_be_is_refused(self, options: dict[str, Any], expected: str) -> None:
        with pytest.raises(InvalidInput) as met:
            sampling_parameters(**options)
        assert met.value.expected == expected
        assert next(iter(options)) in met.value.what


class TestInputs:
    def test_a_prompt_asks_for_all_that_the_model_can_tell(self) -> None:
        request = TextRequest(sampling_parameters(max_tokens=3), "hello", stream=True)
        assert request.inputs(OURS) == {
            "text_input": "hello",
            "stream": True,
            "exclude_input_in_output": True,
            "return_finish_reason": True,
            "return_num_output_tokens": True,
            "sampling_parameters": '{"max_tokens": 3}',
        }

    def test_they_pass_the_check_of_every_request(self) -> None:
        request = TextRequest({}, "안녕")
        built = build_request(Question("chat", request.inputs), OURS)
        tensors = {tensor.name: tensor.array for tensor in built.inputs}
        assert tensors["text_input"].tolist() == ["안녕".encode()]
        assert tensors["stream"].dtype == np.bool_

    def test_logprobs_are_returned_when_asked_for(self) -> None:
        assert TextRequest({"logprobs": 0}, "a").inputs(OURS)["return_logprobs"] is True

    def test_a_chat_goes_to_a_model_that_renders_it(self) -> None:
        chat = chat_document([{"role": "user", "content": "hi"}])
        inputs = TextRequest({}, chat=chat).inputs(OURS)
        assert (inputs["text_input"], json.loads(inputs["chat"])) == (
            "",
            {"messages": [{"role": "user", "content": "hi"}]},
        )

    def test_a_chat_is_refused_where_nobody_renders_it(self) -> None:
        with pytest.raises(InvalidInput, match="takes no chat"):
            TextRequest({}, chat="{}").inputs(VLLM)

    def test_a_model_that_generates_no_text_says_what_it_takes(self) -> None:
        with pytest.raises(InvalidInput, match="does not generate text"):
            TextRequest({}, "a").inputs(signature("text"))

    def test_vllm_names_adapters_and_schemas_its_own_way(self) -> None:
        sampling = sampling_parameters(lora="pirate", json_schema={"type": "object"})
        sent = json.loads(TextRequest(sampling, "a").inputs(VLLM)["sampling_parameters"])
        assert sent["lora_name"] == "pirate"
        assert json.loads(sent["guided_decoding"]) == {"json": {"type": "object"}}

    def test_what_is_no_json_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="JSON"):
            TextRequest(sampling_parameters(extra={"x": object()}), "a").inputs(OURS)


class TestChat:
    def test_tools_and_variables_go_with_the_messages(self) -> None:
        messages = [{"role": "user", "content": "안녕"}]
        document = json.loads(chat_document(messages, tools=[{"type": "function"}], template_variables={"thinking": 1}))
        assert document == {
            "messages": messages,
            "tools": [{"type": "function"}],
            "template_variables": {"thinking": 1},
        }

    @pytest.mark.parametrize(
        "messages", [[], "hi", {"role": "user"}, ["hi"], [{"content": "hi"}], [{"role": "user", 1j: 2}]]
    )
    def test_what_is_no_chat_is_refused(self, messages: Any) -> None:
        with pytest.raises(InvalidInput):
            chat_document(messages)


@dataclass
class Output:
    name: str


@dataclass
class Response:
    """The fields of a ModelInferResponse that are read."""

    outputs: list[Output] = field(default_factory=list)
    raw_output_contents: list[bytes] = field(default_factory=list)
    model_name: str = "chat"
    model_version: str = "3"


def response(**tensors: str | int) -> Response:
    def raw(value: str | int) -> bytes:
        if isinstance(value, int):
            return value.to_bytes(4, "little")
        return len(value.encode()).to_bytes(4, "little") + value.encode()

    return Response([Output(name) for name in tensors], [raw(value) for value in tensors.values()])


class TestPieces:
    def read(self, *responses: Response, **sampling: Any) -> list[Piece | None]:
        reader = piece_reader(TextRequest(sampling, "a", stream=True))
        return [reader(each) for each in responses]

    def test_counts_add_up(self) -> None:
        first = response(text_output="안", finish_reason="", num_input_tokens=7, num_output_tokens=2)
        last = response(text_output="녕", finish_reason="stop", num_output_tokens=1)
        assert self.read(first, last) == [
            Piece("안", None, 7, 2, None, "chat", "3"),
            Piece("녕", "stop", 7, 3, None, "chat", "3"),
        ]

    def test_vllm_says_none_until_the_end(self) -> None:
        (piece,) = self.read(response(text_output="a", finish_reason="None"))
        assert piece is not None
        assert piece.finish_reason is None

    def test_a_model_that_tells_nothing_is_read_too(self) -> None:
        assert self.read(response(text_output="a")) == [Piece("a", model="chat", version="3")]

    def test_an_empty_last_response_is_no_piece(self) -> None:
        assert self.read(Response()) == [None]

    def test_log_probabilities_come_with_so_many_alternatives(self) -> None:
        told = [{"5": {"logprob": -3.0, "rank": 9, "decoded_token": " a"}}]
        told[0] |= {
            "8": {"logprob": -1.0, "rank": 2, "decoded_token": "c"},
            "7": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
        }
        (piece,) = self.read(response(text_output=" a", logprobs=json.dumps(told)), logprobs=2)
        assert piece is not None
        assert piece.logprobs == (
            TokenLogprob(" a", -3.0, 5, (TokenLogprob("b", -0.5, 7), TokenLogprob("c", -1.0, 8))),
        )

    @pytest.mark.parametrize(("rank", "asked"), [(1, 0), (None, 1)])
    def test_no_alternatives_unless_asked_for_and_known(self, rank: int | None, asked: int) -> None:
        told = json.dumps([{"5": {"logprob": -3.0, "rank": rank}}])
        (piece,) = self.read(response(text_output="a", logprobs=told), logprobs=asked)
        assert piece is not None
        assert piece.logprobs == (TokenLogprob("", -3.0, 5),)

    def test_pieces_make_a_whole(self) -> None:
        one, two = TokenLogprob("a", -1.0, 1), TokenLogprob("b", -2.0, 2)
        pieces = [Piece("a", None, 3, 1, (one,), "chat", "3"), Piece("b", "length", 3, 2, (two,), "chat", "3")]
        assert whole(pieces) == Generated("ab", "length", 3, 2, (one, two), "chat", "3")

    def test_nothing_is_an_empty_text(self) -> None:
        assert whole([]) == Generated("", None, None, None, None, "", "")


@pytest.mark.parametrize(
    ("message", "kind", "got"),
    [
        ("invalid: no such adapter", InvalidInput, "no such adapter"),
        ("too long: 9 tokens, 8 fit", ContextTooLong, "9 tokens, 8 fit"),
        ("queue full: 16 wait", QueueFull, "16 wait"),
        ("Failed to process the request(s), message: TritonModelException: invalid: x: y", InvalidInput, "x: y"),
        (
            "The decoder prompt (length 9) is longer than the maximum model length of 8.",
            ContextTooLong,
            "The decoder prompt (length 9) is longer than the maximum model length of 8.",
        ),
        ("CUDA is gone", InferenceFailed, "CUDA is gone"),
    ],
)
def test_a_refusal_is_told_by_its_first_words(message: str, kind: type[ClientError], got: str) -> None:
    operation = Operation("async_stream_infer", inference=InferRequest("chat", "", ()), model="chat", retry=False)
    error = explain(Refused(message), parse_address("grpc://a"), operation, 1.0).error
    assert type(error) is kind
    assert error.got == got
