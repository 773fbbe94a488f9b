"""The load of streams against what it is made for: Triton's gRPC, and the gateway's events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conch.errors import ClientError
from perf.contenders.generation_field import Load, over_events, over_grpc, through_client
from perf.stream_load import run_sse_load
from tests.fakes.parrot import add_parrot

pytestmark = pytest.mark.integration

ASKED = Load("nonce", mean_tokens=6, streams=4, duration_s=1.0, warmup_s=0.2)


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    add_parrot(triton)
    return triton


@pytest.mark.parametrize("way", ["grpc", "client", "events"])
def test_streams_are_kept_up_and_their_tokens_counted(server: Any, gateway: Any, way: str) -> None:
    contender = {
        "grpc": lambda: over_grpc("parrot", server.grpc_url, 0),
        "client": lambda: through_client("parrot", server.grpc_url),
        "events": lambda: over_events("parrot", gateway.url, 0),
    }[way]()
    result = contender.load(ASKED)
    assert (result.streams, result.failures) == (4, 0)
    assert result.texts > 4
    assert 0.9 <= result.tokens_a_response <= 1.1
    assert 0 < result.first_token_p50_ms <= result.first_token_p99_ms
    assert contender.texts(["one two", "three"], 3, 2) == ["one two one", "three three three"]


def test_a_refusal_over_grpc_is_a_failure_and_no_text(server: Any) -> None:
    result = over_grpc("parrot", server.grpc_url, 0).load(Load("invalid: no", 6, 1, 0.5, 0.0))
    assert result.texts == 0
    assert result.failures > 0


def test_a_refusal_of_the_gateway_ends_the_measurement(server: Any, gateway: Any) -> None:
    body = json.dumps({"model": "no_such_model", "prompt": "a", "stream": True}).encode()
    with pytest.raises(ClientError) as met:
        run_sse_load(f"{gateway.url}/v1/completions", [body], [1], 1, 0.5, 0.0)
    assert "no_such_model" in str(met.value.got)
