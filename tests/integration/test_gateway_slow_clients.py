"""Clients that are slow on purpose, a thousand of them, while others are answered; and when each kind is shown out."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.security import slow_clients
from tests.fakes.parrot import add_parrot
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = pytest.mark.integration

PREDICT = "POST /predict/beside_the_slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
# Half a request head, a body that stops in the middle, and the same in chunks.
SLOW_HEADERS = PREDICT + "X-Slow: "
SLOW_BODY = PREDICT + 'Content-Length: 5000\r\n\r\n{"x":'
SLOW_CHUNKS = PREDICT + 'Transfer-Encoding: chunked\r\n\r\n1000\r\n{"x":'
MANY = 330


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in which a test has the patience to wait."""
    monkeypatch.setattr(slow_clients, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(slow_clients, "HEADERS_WITHIN_S", 1.0)
    monkeypatch.setattr(slow_clients, "BODY_GRACE_S", 1.0)
    monkeypatch.setattr(slow_clients, "READS_WITHIN_S", 1.0)


@pytest.fixture(scope="module")
def model(triton: Any, write_python_model: Any) -> str:
    write_python_model(triton.repository, "beside_the_slow")
    triton.load("beside_the_slow")
    return "beside_the_slow"


@pytest.fixture(scope="module")
def parrot(triton: Any) -> str:
    add_parrot(triton, "slowly_read")
    return "slowly_read"


def stream_request(model: str, words: int) -> bytes:
    body = json.dumps({"model": model, "prompt": "x" * 20_000, "max_tokens": words}).encode()
    head = f"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def normal(gateway: Any, timeout_s: float = 10.0) -> int:
    request = urllib.request.Request(
        f"{gateway.url}/predict/beside_the_slow", b'{"x": 1.0}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return int(answer.status)


@dataclass
class Crowd:
    """Connections that have said something, and wait."""

    sockets: list[socket.socket]

    def drip(self) -> None:
        """Each says one more byte, as slowloris does."""
        for one in self.sockets:
            try:
                one.send(b"1")
            except OSError:
                continue

    def ended(self) -> int:
        """How many the gateway has closed."""
        count = 0
        for one in self.sockets:
            one.setblocking(False)
            try:
                while one.recv(65536):
                    pass
                count += 1
            except BlockingIOError:
                continue
            except OSError:
                count += 1
        return count


@pytest.fixture
def crowd() -> Iterator[Any]:
    sockets: list[socket.socket] = []

    def gather(gateway: Any, said: bytes | str, count: int, *, receive_bytes: int | None = None) -> Crowd:
        joined = []
        for _ in range(count):
            one = socket.socket()
            if receive_bytes is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            one.connect(("127.0.0.1", gateway.port))
            one.sendall(said.encode() if isinstance(said, str) else said)
            joined.append(one)
        sockets.extend(joined)
        return Crowd(joined)

    yield gather
    for one in sockets:
        one.close()


def raise_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"no more than {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def test_a_thousand_slow_clients_do_not_keep_others_waiting(triton: Any, model: str, parrot: str, crowd: Any) -> None:
    raise_file_limit(4096)
    with running_gateway(triton, drain_s=1.0) as gateway:
        wait_ready(gateway)
        crowds = [crowd(gateway, said, MANY) for said in (SLOW_HEADERS, SLOW_BODY, SLOW_CHUNKS)]
        readers = crowd(gateway, stream_request(parrot, 300), 10, receive_bytes=4096)
        assert sum(len(c.sockets) for c in [*crowds, readers]) == 1000
        for _ in range(3):
            for slow in crowds:
                slow.drip()
            assert [normal(gateway) for _ in range(20)] == [200] * 20
        assert len(gateway.server.server_state.connections) >= 900


@pytest.mark.parametrize("said", [SLOW_HEADERS, SLOW_BODY, SLOW_CHUNKS, ""])
def test_who_does_not_finish_a_request_is_shown_out(
    triton: Any, model: str, impatient: None, crowd: Any, said: str
) -> None:
    with running_gateway(triton) as gateway:
        wait_ready(gateway)
        slow = crowd(gateway, said, 20)
        end = time.monotonic() + 10
        while slow.ended() < 20:
            assert time.monotonic() < end
            slow.drip()
            time.sleep(0.1)
        assert normal(gateway) == 200


def test_who_does_not_read_is_shown_out_and_its_work_is_cancelled(
    triton: Any, parrot: str, impatient: None, crowd: Any
) -> None:
    with running_gateway(triton) as gateway:
        wait_ready(gateway)
        crowd(gateway, stream_request(parrot, 2000), 3, receive_bytes=4096)
        end = time.monotonic() + 15
        seen = 0
        while True:
            there = gateway.state.door.in_flight(parrot)
            seen = max(seen, there)
            if seen == 3 and there == 0:
                break
            assert time.monotonic() < end, (seen, there)
            time.sleep(0.05)
        assert normal(gateway) == 200


async def test_a_body_that_comes_slowly_but_steadily_is_waited_for(
    triton: Any, model: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_clients, "BODY_BYTES_PER_SECOND", 100)
    with running_gateway(triton) as gateway:
        await asyncio.to_thread(wait_ready, gateway)
        body = b'{"x": 1.0}' + b" " * 590
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(PREDICT.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        for at in range(0, len(body), 60):
            await asyncio.sleep(0.2)
            writer.write(body[at : at + 60])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_headers_without_end_are_refused(triton: Any, gateway: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /ready HTTP/1.1\r\n")
    answer = b""
    try:
        for _ in range(100):
            writer.write(b"X-More: " + b"a" * 4096 + b"\r\n")
            await writer.drain()
        answer = await reader.read()
    except ConnectionError:
        pass
    writer.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    with urllib.request.urlopen(f"{gateway.url}/ready", timeout=10) as still:
        assert still.status == 200


def test_an_idle_connection_between_requests_is_left_alone(
    triton: Any, model: str, impatient: None, crowd: Any
) -> None:
    """uvicorn's own keep-alive timeout is for these."""
    with running_gateway(triton) as gateway:
        wait_ready(gateway)
        idle = crowd(gateway, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", 3)
        time.sleep(2.0)
        assert idle.ended() == 0
