"""Both clients and the real engine: what a parrot cannot show."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import AsyncClient
from conch.errors import ContextTooLong, InvalidInput, QueueFull
from tests.fakes import tiny_llama
from tests.fakes.any_client import AnyClient

pytest.importorskip("openvino_genai", reason="the extra llm is not installed")
pytest.importorskip("optimum.intel", reason="the converter is not installed: see export/llm/convert.py")

pytestmark = pytest.mark.integration

NAME = "client_llama"
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}
PROMPTS = [f"{start} {number}: the parcel" for number, start in enumerate(["배송이", "A", "Café 🙂", "중문 日本"] * 4)]
CHAT = [{"role": "user", "content": "배송이 너무 늦어요"}]


@pytest.fixture(scope="module")
def server(triton: Any) -> Iterator[Any]:
    settings = {"max_queue_size": "1", "max_num_seqs": "16"}
    tiny_llama.write_model(triton.repository, NAME, settings, adapters={"one": 1})
    triton.load(NAME)
    yield triton
    triton.unload(NAME)


@pytest.fixture(scope="module", params=["grpc", "grpc-async"])
def client(server: Any, request: pytest.FixtureRequest) -> Iterator[AnyClient]:
    with AnyClient(request.param, server.grpc_url) as connected:
        yield connected


def test_pieces_make_the_whole_text(client: AnyClient) -> None:
    generated = client.generate(NAME, PROMPTS[0], **GREEDY)
    pieces = client.responses("generate_stream", NAME, PROMPTS[0], **GREEDY)
    assert "".join(piece.text for piece in pieces) == generated.text
    assert not generated.text.startswith(PROMPTS[0])
    last = pieces[-1]
    assert (last.finish_reason, last.input_tokens, last.output_tokens) == (
        generated.finish_reason,
        generated.input_tokens,
        generated.output_tokens,
    )
    assert (generated.finish_reason, generated.output_tokens) == ("length", 24)
    assert generated.input_tokens > 3


def test_a_chat_and_the_prompt_that_its_template_makes_are_one(client: AnyClient) -> None:
    prompt = f"<|user|>{CHAT[0]['content']}</s><|assistant|>"
    told = client.chat(NAME, CHAT, **GREEDY)
    assert told.text == client.generate(NAME, prompt, **GREEDY).text
    pieces = client.responses("chat_stream", NAME, CHAT, **GREEDY)
    assert "".join(piece.text for piece in pieces) == told.text


def test_the_readmes_chat_streams(server: Any) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n# chat\.py\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for documented, here in (("grpc://127.0.0.1:8001", server.grpc_url), ('"chat"', f'"{NAME}"')):
        assert documented in program
        program = program.replace(documented, here)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 1


def test_log_probabilities_are_one_a_token(client: AnyClient) -> None:
    generated = client.generate(NAME, "the", max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=1)
    assert len(generated.logprobs) == 6
    assert all(token.logprob <= 0 for token in generated.logprobs)


def test_a_schema_and_an_adapter(client: AnyClient) -> None:
    schema = {"enum": ["yes, please", "no, thanks"]}
    assert json.loads(client.generate(NAME, "well?", max_tokens=60, json_schema=schema).text) in schema["enum"]
    with_adapter = client.generate(NAME, PROMPTS[1], lora="one", **GREEDY).text
    assert with_adapter != client.generate(NAME, PROMPTS[1], **GREEDY).text
    with pytest.raises(InvalidInput, match="the model refuses"):
        client.generate(NAME, "a", lora="none")


def test_a_prompt_that_is_too_long_has_its_error(client: AnyClient) -> None:
    with pytest.raises(ContextTooLong) as met:
        client.generate(NAME, "the parcel " * 10_000, max_tokens=4)
    assert "max_tokens" in str(met.value.fix)


async def test_greedy_texts_are_the_same_alone_and_beside_others(server: Any) -> None:
    async with AsyncClient(server.grpc_url) as client:
        alone = [(await client.generate(NAME, prompt, **GREEDY)).text for prompt in PROMPTS]
        beside = await asyncio.gather(*(client.generate(NAME, prompt, **GREEDY) for prompt in PROMPTS))
    assert [generated.text for generated in beside] == alone
    assert len(set(alone)) > 8


async def test_places_that_closed_streams_held_are_free_again(server: Any) -> None:
    long: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1900, "ignore_eos": True}
    async with AsyncClient(server.grpc_url) as client:
        streams = [client.generate_stream(NAME, prompt, **long) for prompt in PROMPTS]
        await asyncio.gather(*(anext(stream) for stream in streams))
        waiting = asyncio.create_task(client.generate(NAME, "one waits", **GREEDY))
        await asyncio.sleep(0.2)
        with pytest.raises(QueueFull):
            await client.generate(NAME, "one too many", **GREEDY)
        await asyncio.gather(*(stream.aclose() for stream in streams))
        # The 16 texts that ran would take many times as long.
        assert (await asyncio.wait_for(waiting, 10)).output_tokens == 24
