"""/generate and /stream against a real gateway and a model that streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clients import Client
from tests.fakes.parrot import add_parrot, state, wait_for_state

pytestmark = pytest.mark.integration

ASKED = {"model": "rest_parrot", "prompt": "polly wants a cracker", "max_tokens": 6}


@pytest.fixture(scope="module")
def parrot(triton: Any) -> Any:
    add_parrot(triton, "rest_parrot")
    return triton


@pytest.fixture(scope="module")
def client(gateway: Any, parrot: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as connected:
        yield connected


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events: their names ("" for none) and documents."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


def test_the_whole_text(client: httpx.Client) -> None:
    answer = client.post("/generate", json=ASKED)
    assert answer.status_code == 200
    assert answer.json() == {
        "text": "polly wants a cracker polly wants",
        "finish_reason": "length",
        "usage": {"input_tokens": 4, "output_tokens": 6},
    }
    assert answer.headers["X-Model-Name"] == "rest_parrot"


def test_a_chat(client: httpx.Client) -> None:
    asked = {"model": "rest_parrot", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}
    assert client.post("/generate", json=asked).json()["text"] == "user hello there"


def test_a_stream_comes_piece_by_piece_and_ends_with_the_counts(client: httpx.Client) -> None:
    with client.stream("POST", "/stream", json=ASKED) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        found = events(answer.read().decode())
    assert {name for name, _ in found} == {""}
    assert "".join(piece["text"] for _, piece in found) == "polly wants a cracker polly wants"
    assert len(found) >= 6
    assert (found[-1][1]["finish_reason"], found[-1][1]["usage"]) == ("length", {"input_tokens": 4, "output_tokens": 6})
    assert [piece for _, piece in found[:-1] if "finish_reason" in piece] == []


def test_logprobs_come_where_they_are_asked_for(client: httpx.Client) -> None:
    tokens = client.post("/generate", json=ASKED | {"logprobs": 1}).json()["logprobs"]
    assert [token["token"] for token in tokens][:2] == ["polly", " wants"]
    assert {token["logprob"] for token in tokens} == {-0.5}


@pytest.mark.parametrize("path", ["/generate", "/stream"])
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"prompt": "too long: 100000 tokens, the model takes 512"}, 400, "context_length_exceeded"),
        ({"prompt": "invalid: nonsense"}, 400, None),
        ({"prompt": "queue full: come back"}, 429, "queue_full"),
        ({"prompt": 5}, 400, None),
        ({"max_tokens": -1}, 400, None),
        ({"max_token": 5}, 400, None),
        ({"model": "rest_parot"}, 404, "model_not_found"),
    ],
)
def test_a_failure_before_the_first_piece_has_its_own_status(
    client: httpx.Client, path: str, change: dict[str, Any], status: int, code: str | None
) -> None:
    answer = client.post(path, json=ASKED | change)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert (status != 429) or answer.headers["Retry-After"]


def test_a_model_that_does_not_generate_says_where_to_ask(client: httpx.Client, parrot: Any) -> None:
    from tests.fakes.client_models import ECHO, ECHO_CONFIG

    parrot.add("rest_echo", ECHO_CONFIG, {"model.py": ECHO})
    answer = client.post("/generate", json=ASKED | {"model": "rest_echo"})
    assert answer.status_code == 400
    assert "/predict/rest_echo" in answer.json()["error"]["message"]


def test_a_model_that_generates_says_where_to_ask(client: httpx.Client) -> None:
    answer = client.post("/predict/rest_parrot", json={"text_input": "hello"})
    assert answer.status_code == 400
    assert "/generate" in answer.json()["error"]["message"]


def test_leaving_a_stream_frees_its_place(client: httpx.Client, parrot: Any) -> None:
    slow = ASKED | {"max_tokens": 10_000, "extra": {"delay_ms": 5}}
    with Client(parrot.grpc_url) as direct:
        before = state(direct, "rest_parrot")["cancelled"]
        with client.stream("POST", "/stream", json=slow) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert state(direct, "rest_parrot")["running"] == 1
        assert wait_for_state(direct, "rest_parrot", running=0, cancelled=before + 1) == {
            "running": 0,
            "cancelled": before + 1,
        }
