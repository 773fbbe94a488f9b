"""Several Tritons behind one gateway, and Tritons that die: who is asked, what clients see, how it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server import ports
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.conftest import StartServer, WriteModel
from tests.fakes import slow_text
from tests.gateway_fixtures import RunningGateway, StartGateway, wait_for, wait_ready

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, write_python_model: WriteModel) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_python_model(folder, "add")
    write_python_model(folder, "text", slow_text.SOURCE, slow_text.CONFIG)
    return folder


@contextlib.contextmanager
def triton_at(repository: Path, http_port: int, grpc_port: int) -> Iterator[EmbeddedServer]:
    options = ServerOptions(http_port=http_port, grpc_port=grpc_port, metrics_port=0, exit_timeout_s=1)
    server = EmbeddedServer(repository, options, start_timeout_s=120)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.stop()


class Addresses:
    """Where a Triton will be."""

    def __init__(self) -> None:
        self.http_port, self.grpc_port = ports.choose("127.0.0.1", 2)
        self.http_url = f"http://127.0.0.1:{self.http_port}"
        self.grpc_url = f"grpc://127.0.0.1:{self.grpc_port}"


def ask(gateway: RunningGateway, **headers: str) -> httpx.Response:
    return httpx.post(f"{gateway.url}/predict/add", json={"x": 1.0}, headers=headers, timeout=30)


def states(gateway: RunningGateway) -> list[str]:
    return [server.state for server in gateway.state.pool.servers]


def test_it_starts_without_a_triton_says_so_and_finds_it(start_gateway: StartGateway, repository: Path) -> None:
    place = Addresses()
    running = start_gateway(place)
    ready, refused = httpx.get(f"{running.url}/ready"), ask(running)
    assert (ready.status_code, httpx.get(f"{running.url}/health").status_code) == (503, 200)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_server")
    assert "Retry-After" in refused.headers
    assert str(place.http_port) not in refused.text
    with triton_at(repository, place.http_port, place.grpc_port):
        wait_ready(running)
        assert ask(running).json() == {"y": 2.0}


def test_two_servers_share_the_work_and_one_that_dies_costs_no_request(
    start_gateway: StartGateway, start_server: StartServer, repository: Path
) -> None:
    stays, dies = start_server(repository), Addresses()
    statuses: list[int] = []

    async def through_a_death(gateway: RunningGateway, second: EmbeddedServer) -> None:
        until = asyncio.Event()

        async def load(client: httpx.AsyncClient) -> None:
            while not until.is_set():
                answer = await client.post(f"{gateway.url}/predict/add", json={"x": 1.0})
                statuses.append(answer.status_code)
                if answer.status_code != 200:
                    print("NOT200", answer.status_code, answer.text)

        async with httpx.AsyncClient(timeout=30) as client:
            asking = [asyncio.create_task(load(client)) for _ in range(6)]
            await asyncio.to_thread(wait_for, lambda: all(s.last_chosen for s in gateway.state.pool.servers))
            second.kill()
            await asyncio.sleep(1.5)
            until.set()
            await asyncio.gather(*asking)

    with triton_at(repository, dies.http_port, dies.grpc_port) as second:
        running = start_gateway(stays, dies)
        wait_for(lambda: states(running) == ["up", "up"])
        asyncio.run(through_a_death(running, second))
    assert set(statuses) == {200}
    assert len(statuses) > 20
    assert states(running) == ["up", "down"]
    with triton_at(repository, dies.http_port, dies.grpc_port):
        wait_for(lambda: states(running) == ["up", "up"])
        chosen = running.state.pool.servers[1].last_chosen
        assert ask(running).status_code == ask(running).status_code == 200
        assert running.state.pool.servers[1].last_chosen > chosen


def test_a_triton_killed_under_streams_ends_them_cleanly_and_a_new_one_is_found(
    start_gateway: StartGateway, repository: Path
) -> None:
    place = Addresses()
    asked = {"model": "text", "prompt": "400 0.02", "stream": True}

    async def one(gateway: RunningGateway) -> tuple[int, list[str]]:
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{gateway.url}/v1/completions", json=asked) as answer,
        ):
            return answer.status_code, [line async for line in answer.aiter_lines() if line]

    async def killed_in_the_middle(gateway: RunningGateway, triton: EmbeddedServer) -> list[tuple[int, list[str]]]:
        streams = [asyncio.create_task(one(gateway)) for _ in range(8)]
        await asyncio.sleep(1.5)
        triton.kill()
        return list(await asyncio.wait_for(asyncio.gather(*streams), 20))

    with triton_at(repository, place.http_port, place.grpc_port) as first:
        running = start_gateway(place)
        wait_ready(running)
        ended = asyncio.run(killed_in_the_middle(running, first))
    assert {status for status, _ in ended} == {200}
    assert all("word3" in "".join(lines) for _, lines in ended), "they had begun"
    assert all('"error"' in lines[-1] and "no_server" in lines[-1] for _, lines in ended), ended[0][1][-2:]
    assert "Traceback" not in str(ended)
    wait_for(lambda: httpx.get(f"{running.url}/ready").status_code == 503, 10)
    assert running.state.door.in_flight("text") == 0
    with triton_at(repository, place.http_port, place.grpc_port):
        back_at_s = time.monotonic()
        wait_ready(running, 10)
        answer = httpx.post(
            f"{running.url}/v1/completions", json=asked | {"prompt": "3 0", "stream": False}, timeout=30
        )
        assert answer.json()["choices"][0]["text"] == "word1 word2 word3 "
        assert time.monotonic() - back_at_s < 10
