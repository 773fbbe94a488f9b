"""Keys and limits as the official openai client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from gateway.security.keys_cli import key
from tests.fakes.openai_clients import sync_client
from tests.fakes.parrot import add_parrot
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = pytest.mark.integration

ASKED: Any = {"model": "parrot", "prompt": "one two", "max_tokens": 2}


KEYS = {
    "birds": ("--model", "par*"),
    "fish": ("--model", "carp*"),
    "slow": ("--requests", "2/minute"),
    "patient": ("--requests", "1/second"),
    "short": ("--tokens", "10/minute"),
}


@dataclass(frozen=True)
class Served:
    """A gateway with keys, and these by name."""

    url: str
    keys: dict[str, str]

    def client(self, name: str, **options: Any) -> openai.OpenAI:
        return sync_client(self.url, api_key=self.keys[name], **options)


@pytest.fixture(scope="module")
def served(triton: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    add_parrot(triton)
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    made = {name: create(file, name, *options) for name, options in KEYS.items()}
    with running_gateway(triton, keys_file=file) as gateway:
        wait_ready(gateway)
        yield Served(gateway.url, made)


def create(file: Path, name: str, *options: str) -> str:
    """A new key."""
    done = CliRunner().invoke(key, ["create", name, "--keys", str(file), *options], catch_exceptions=False)
    return done.stdout.strip()


@pytest.mark.parametrize("wrong", ["none", "sk-wrong", "birds"])
def test_a_wrong_key(served: Served, wrong: str) -> None:
    with sync_client(served.url, api_key=wrong) as client, pytest.raises(openai.AuthenticationError) as met:
        client.completions.create(**ASKED)
    assert met.value.code == "invalid_api_key"


def test_a_key_s_models(served: Served) -> None:
    with served.client("birds") as client:
        assert client.completions.create(**ASKED).choices[0].text == "one two"
        assert "parrot" in [model.id for model in client.models.list()]
    with served.client("fish") as client:
        assert client.models.list().data == []
        with pytest.raises(openai.PermissionDeniedError) as met:
            client.completions.create(**ASKED)
    assert (met.value.code, met.value.param) == ("model_not_allowed", "model")


def test_a_key_over_its_requests(served: Served) -> None:
    with served.client("slow") as client:
        # Choices are one request.
        assert len(client.completions.create(**ASKED, n=4).choices) == 4
        client.completions.create(**ASKED)
        with pytest.raises(openai.RateLimitError) as met:
            client.completions.create(**ASKED)
    assert (met.value.code, met.value.type) == ("rate_limit_exceeded", "requests")
    assert 1 <= int(met.value.response.headers["Retry-After"]) <= 60


def test_the_client_waits_as_it_is_told(served: Served) -> None:
    with served.client("patient", max_retries=3) as client:
        texts = [client.completions.create(**ASKED).choices[0].text for _ in range(3)]
    assert texts == ["one two"] * 3


def test_a_key_over_its_tokens(served: Served) -> None:
    with served.client("short") as client:
        assert len(list(client.completions.create(model="parrot", prompt="a b", max_tokens=20, stream=True))) == 20
        with pytest.raises(openai.RateLimitError) as met:
            client.completions.create(**ASKED)
    assert (met.value.code, met.value.type) == ("rate_limit_exceeded", "tokens")
