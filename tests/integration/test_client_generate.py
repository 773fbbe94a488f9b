"""Text from a real server, through both clients and `conch infer`: whole, in pieces, cancelled, refused."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clients import AsyncClient, Client, Piece
from clients.cli import infer
from conch.errors import ClientError, ContextTooLong, DeadlineExceeded, InferenceFailed, InvalidInput, QueueFull
from tests.fakes.any_client import AnyClient
from tests.fakes.parrot import add_parrot, wait_for_state

pytestmark = pytest.mark.integration

CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    add_parrot(triton)
    add_parrot(triton, "parrot_of_vllm", chat=False)
    return triton


@pytest.fixture(params=["grpc", "grpc-async"])
def client(server: Any, request: pytest.FixtureRequest) -> Iterator[AnyClient]:
    with AnyClient(request.param, server.grpc_url) as connected:
        yield connected


def test_a_text_comes_whole(client: AnyClient) -> None:
    generated = client.generate("parrot", "one two", max_tokens=3)
    assert (generated.text, generated.finish_reason) == ("one two one", "length")
    assert (generated.input_tokens, generated.output_tokens) == (2, 3)
    assert (generated.model, generated.version) == ("parrot", "1")


def test_or_in_pieces(client: AnyClient) -> None:
    pieces = client.responses("generate_stream", "parrot", "one 둘", max_tokens=3)
    assert [piece.text for piece in pieces] == ["one", " 둘", " one"]
    assert [piece.finish_reason for piece in pieces] == [None, None, "length"]
    assert [piece.output_tokens for piece in pieces] == [1, 2, 3]


def test_a_chat_is_rendered_by_the_model(client: AnyClient) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert client.chat("parrot", CHAT, max_tokens=5).text == "system be brief user hi"
    assert client.chat("parrot", CHAT, max_tokens=6, tools=tools).text == "system be brief user hi weather"
    assert len(client.responses("chat_stream", "parrot", CHAT, max_tokens=5)) == 5


def test_sampling_goes_to_the_model(client: AnyClient) -> None:
    sent = client.generate("parrot", "sampling?", max_tokens=99, seed=7, stop=["{END"]).text
    assert sent.startswith('{"max_tokens": 99, "seed": 7, "stop": ["{END"]}')
    assert client.generate("parrot", "a b END c", stop="END").finish_reason == "stop"


def test_log_probabilities(client: AnyClient) -> None:
    generated = client.generate("parrot", "one two", max_tokens=2, logprobs=1)
    assert [token.token for token in generated.logprobs] == ["one", " two"]
    assert [token.top[0].token for token in generated.logprobs] == ["?", "?"]


def test_a_model_of_vllm_is_asked_the_same_way(client: AnyClient) -> None:
    assert client.generate("parrot_of_vllm", "one", max_tokens=1, lora="pirate").text == "one"
    with pytest.raises(InvalidInput, match="takes no chat"):
        client.chat("parrot_of_vllm", CHAT)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("invalid: no", InvalidInput),
        ("too long: no", ContextTooLong),
        ("queue full: no", QueueFull),
        ("fail: no", InferenceFailed),
    ],
)
def test_a_refusal_has_its_error(client: AnyClient, prompt: str, kind: type[ClientError]) -> None:
    with pytest.raises(ClientError) as met:
        client.generate("parrot", prompt)
    assert type(met.value) is kind
    assert met.value.got == "no"


def test_an_unknown_parameter_is_refused_before_it_is_sent_and_by_the_model(client: AnyClient) -> None:
    with pytest.raises(InvalidInput, match="no sampling parameter sede"):
        client.generate("parrot", "a", sede=1)
    with pytest.raises(InvalidInput, match="the model refuses"):
        client.generate("parrot", "a", extra={"sede": 1})


def test_closing_the_iterator_cancels(server: Any, client: AnyClient) -> None:
    with Client(server.grpc_url) as looker:
        before = wait_for_state(looker, running=0)["cancelled"]
        sampling = {"max_tokens": 10_000, "extra": {"delay_ms": 5}}
        assert len(client.responses("generate_stream", "parrot", "a", first=2, **sampling)) == 2
        assert wait_for_state(looker, running=0, cancelled=before + 1) == {"running": 0, "cancelled": before + 1}


async def test_leaving_the_loop_is_enough(server: Any) -> None:
    with Client(server.grpc_url) as looker:
        before = wait_for_state(looker, running=0)["cancelled"]
        sampling: dict[str, Any] = {"max_tokens": 10_000, "extra": {"delay_ms": 5}}
        for _ in looker.generate_stream("parrot", "a", **sampling):
            break
        async with AsyncClient(server.grpc_url) as client:
            async for _ in client.generate_stream("parrot", "a", **sampling):
                break
            await asyncio.sleep(0.1)
            assert wait_for_state(looker, running=0, cancelled=before + 2) == {"running": 0, "cancelled": before + 2}


def test_a_deadline_cancels(server: Any, client: AnyClient) -> None:
    with Client(server.grpc_url) as looker:
        before = wait_for_state(looker, running=0)["cancelled"]
        with pytest.raises(DeadlineExceeded):
            client.responses("generate_stream", "parrot", "a", timeout_s=0.3, max_tokens=10_000, extra={"delay_ms": 5})
        assert wait_for_state(looker, running=0, cancelled=before + 1) == {"running": 0, "cancelled": before + 1}


async def test_a_task_that_is_cancelled_cancels_its_text(server: Any) -> None:
    with Client(server.grpc_url) as looker:
        before = wait_for_state(looker, running=0)["cancelled"]
        async with AsyncClient(server.grpc_url) as client:
            task = asyncio.create_task(client.generate("parrot", "a", max_tokens=10_000, extra={"delay_ms": 5}))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert wait_for_state(looker, running=0, cancelled=before + 1) == {"running": 0, "cancelled": before + 1}
            assert (await client.generate("parrot", "still here", max_tokens=2)).text == "still here"


async def test_many_streams_of_one_client_run_at_a_time_in_one_thread(server: Any) -> None:
    async with AsyncClient(server.grpc_url) as client:
        arrived: list[int] = []

        async def listen(number: int) -> list[Piece]:
            pieces = []
            sampling: dict[str, Any] = {"max_tokens": 5, "extra": {"delay_ms": 20}}
            async for piece in client.generate_stream("parrot", f"p{number}", **sampling):
                arrived.append(number)
                pieces.append(piece)
            return pieces

        await client.generate("parrot", "warm", max_tokens=1)
        threads = threading.active_count()
        listening = asyncio.gather(*(listen(number) for number in range(32)))
        await asyncio.sleep(0.05)
        assert threading.active_count() == threads
        texts = ["".join(piece.text for piece in pieces) for pieces in await listening]
        assert texts == [" ".join([f"p{number}"] * 5) for number in range(32)]
        assert set(arrived[:64]) > set(range(16)), "streams came one after the other"


def test_a_stream_over_http_points_to_grpc(server: Any) -> None:
    with Client(server.http_url) as client, pytest.raises(InvalidInput, match="needs gRPC"):
        client.generate("parrot", "a")


class TestCommand:
    def run(self, server: Any, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(infer, ["parrot", *arguments, "--url", server.grpc_url], input=stdin)

    @pytest.mark.parametrize("stream", [(), ("--stream",)])
    def test_text_goes_to_stdout_and_its_cost_to_stderr(self, server: Any, stream: tuple[str, ...]) -> None:
        result = self.run(server, "--prompt", "one two", "--sampling", "max_tokens=3", *stream)
        assert result.stdout == "one two one\n"
        assert result.stderr == "parrot, version 1; ended by length; 2 tokens in, 3 out\n"

    @pytest.mark.parametrize("stream", [(), ("--stream",)])
    def test_a_prompt_can_be_a_users_message(self, server: Any, stream: tuple[str, ...]) -> None:
        result = self.run(server, "--prompt", "-", "--chat", "--sampling", "max_tokens=2", *stream, stdin="hi")
        assert result.stdout == "user hi\n"

    def test_json_is_one_document(self, server: Any) -> None:
        result = self.run(server, "--prompt", "a b c", "--sampling", "stop=b", "--sampling", "stop=c", "--json")
        (answer,) = json.loads(result.stdout)["answers"]
        assert (answer["text"], answer["finish_reason"], answer["output_tokens"]) == ("a", "stop", 1)

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (("--text", "a", "--stream"), "need --prompt"),
            (("--prompt", "a", "--text", "a"), "in one way"),
            (("--prompt", "a", "--stream", "--json"), "--stream without --json"),
            (("--prompt", "a", "--sampling", "seed"), "NAME=VALUE"),
        ],
    )
    def test_a_wrong_command_line_is_a_usage_error(self, server: Any, arguments: tuple[str, ...], part: str) -> None:
        result = self.run(server, *arguments)
        assert result.exit_code == 2
        assert part in result.stderr
