"""Limits and answers shared through Redis; Redis killed in the middle, and back. With Debian's redis-server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import CacheSettings, Limits
from tests.gateway_fixtures import wait_ready

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here (Debian: redis-server)"),
]


class RedisServer:
    """A Redis of our own, on a free port; keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            ["redis-server", *arguments, "--dir", str(self._folder)], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < end, "redis-server did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def model(triton: Any, write_python_model: Any) -> str:
    write_python_model(triton.repository, "counted")
    triton.load("counted")
    return "counted"


def ask(gateway: Any, model: str, x: float = 1.0) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(
        f"{gateway.url}/predict/{model}", json.dumps({"x": x}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read()), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), {k.lower(): v for k, v in error.headers.items()}


def statuses(gateway: Any, model: str, times: int) -> list[int]:
    return [ask(gateway, model)[0] for _ in range(times)]


def test_gateways_share_a_limit(triton: Any, model: str, start_gateway: Any, redis_server: RedisServer) -> None:
    limits = Limits(requests=("5/hour",), store=redis_server.url)
    one, other = (start_gateway(triton, limits=limits) for _ in range(2))
    wait_ready(one)
    wait_ready(other)
    assert statuses(one, model, 3) + statuses(other, model, 2) == [200] * 5
    status, document, headers = ask(other, model)
    assert (status, document["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 3500 < int(headers["retry-after"]) <= 3600  # the window was begun by the other gateway
    assert statuses(one, model, 1) == [429]


def test_of_many_at_once_at_two_gateways_just_so_many_pass(
    triton: Any, model: str, start_gateway: Any, redis_server: RedisServer
) -> None:
    gateways = [start_gateway(triton, limits=Limits(requests=("10/hour",), store=redis_server.url)) for _ in range(2)]
    for gateway in gateways:
        wait_ready(gateway)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: ask(gateways[n % 2], model)[0], range(40)))
    assert sorted(found) == [200] * 10 + [429] * 30


@pytest.mark.parametrize(("when_store_fails", "meanwhile"), [("allow", 200), ("refuse", 503)])
def test_redis_gone_fails_as_configured_and_comes_back(
    triton: Any,
    model: str,
    start_gateway: Any,
    redis_server: RedisServer,
    when_store_fails: str,
    meanwhile: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(requests=("3/hour",), store=redis_server.url, when_store_fails=when_store_fails)
    gateway = start_gateway(triton, limits=limits)
    wait_ready(gateway)
    assert statuses(gateway, model, 2) == [200, 200]
    redis_server.kill()
    assert statuses(gateway, model, 6) == [meanwhile] * 6
    redis_server.start()
    time.sleep(1.1)
    assert statuses(gateway, model, 4) == [200, 200, 200, 429]  # an empty Redis counts from the start
    said = [r.getMessage() for r in caplog.records if "the store of the limits" in r.getMessage()]
    assert ["gone" in line for line in said] == [True, False]


def test_redis_that_hangs_costs_a_moment_and_not_every_request(
    triton: Any, model: str, start_gateway: Any, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:  # takes connections, and says nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        gateway = start_gateway(triton, limits=Limits(requests=("3/hour",), store=url), cache=CacheSettings(store=url))
        wait_ready(gateway)
        assert statuses(gateway, model, 10) == [200] * 10


def test_gateways_share_answers_and_live_without(
    triton: Any, model: str, start_gateway: Any, redis_server: RedisServer
) -> None:
    cache = CacheSettings(ttl_s=600, store=redis_server.url)
    one, other = (start_gateway(triton, cache=cache) for _ in range(2))
    wait_ready(one)
    wait_ready(other)
    before = executions(triton, model)
    assert ask(one, model, 5.0)[:2] == (200, {"y": 6.0})
    assert ask(other, model, 5.0)[:2] == (200, {"y": 6.0})
    assert executions(triton, model) - before == 1
    redis_server.kill()
    assert [ask(g, model, 5.0)[:2] for g in (one, other)] == [(200, {"y": 6.0})] * 2
    assert executions(triton, model) - before == 3


def executions(triton: Any, model: str) -> int:
    with urllib.request.urlopen(f"{triton.http_url}/v2/models/{model}/stats", timeout=10) as answer:
        return int(json.loads(answer.read())["model_stats"][0]["execution_count"])
