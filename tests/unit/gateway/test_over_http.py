"""Our small HTTP client, against a server that does what it is told: what is reused, tried again, given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from clients.address import parse_address
from gateway.over_http import OverHttp

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"
CLOSE = b""
WAIT = b"wait"
CUT = b"half"


class Scripted:
    """A server whose connections answer their requests by turns: ``scripts[connection][request]``."""

    def __init__(self, scripts: Sequence[Sequence[bytes]]) -> None:
        self.scripts = scripts
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[self.connections]
        self.connections += 1
        for answer in script:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.requests.append(head + await reader.readexactly(length))
            if answer == WAIT:
                await reader.read()
                self.gone.set()
                break
            if answer == CLOSE:
                break
            writer.write(answer)
            if answer.endswith(CUT):
                break
        else:
            await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def asking(*scripts: Sequence[bytes]) -> AsyncIterator[tuple[OverHttp, Scripted]]:
    scripted = Scripted(scripts)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = OverHttp(parse_address(f"http://127.0.0.1:{port}/triton"), {"X-Fixed": "1"})
    try:
        yield client, scripted
    finally:
        client.close()
        server.close()


async def test_a_request_is_whole_and_its_connection_is_kept() -> None:
    async with asking([OK, OK]) as (client, server):
        first = await client.ask(b"POST", "/v2/a", b"body", headers=b"X-Own: 2\r\n", timeout_s=5)
        second = await client.ask(b"GET", "/v2", timeout_s=5)
    assert (first.status, first.body, second.body) == (200, b"ok", b"ok")
    assert (b"X-A", b"b") in first.headers
    assert server.connections == 1
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /triton/v2/a HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Fixed: 1\r\nX-Own: 2\r\nContent-Length: 4" in head
    assert body == b"body"


async def test_a_connection_that_was_closed_while_idle_costs_no_request() -> None:
    async with asking([OK, CLOSE], [OK]) as (client, server):
        await client.ask(b"GET", "/", timeout_s=5)
        assert (await client.ask(b"GET", "/", timeout_s=5)).status == 200
    assert server.connections == 2


@pytest.mark.parametrize(
    "script",
    [[CLOSE], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], [b"\x00\x01 no http\r\n\r\n"]],
    ids=["nothing", "half", "garbage"],
)
async def test_a_new_connection_that_breaks_is_an_error(script: list[bytes]) -> None:
    async with asking(script) as (client, _):
        with pytest.raises(ConnectionError):
            await client.ask(b"GET", "/", timeout_s=5)


async def test_an_answer_in_chunks_is_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    async with asking([chunked, OK]) as (client, server):
        assert (await client.ask(b"GET", "/", timeout_s=5)).body == b"abc"
        await client.ask(b"GET", "/", timeout_s=5)
    assert server.connections == 1


async def test_the_size_of_the_json_part_is_read() -> None:
    tensors = b"HTTP/1.1 200 OK\r\ninference-header-content-length: 1\r\nContent-Length: 2\r\n\r\n{}"
    async with asking([tensors, OK]) as (client, _):
        assert (await client.ask(b"GET", "/", timeout_s=5)).json_size == 1
        assert (await client.ask(b"GET", "/", timeout_s=5)).json_size is None


async def test_time_runs_out_and_the_server_sees_it() -> None:
    async with asking([WAIT]) as (client, server):
        with pytest.raises(TimeoutError):
            await client.ask(b"GET", "/", timeout_s=0.05)
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_request_that_is_left_closes_its_connection() -> None:
    async with asking([WAIT], [OK]) as (client, server):
        task = asyncio.create_task(client.ask(b"GET", "/", timeout_s=5))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert (await client.ask(b"GET", "/", timeout_s=5)).status == 200


async def test_nobody_there_is_an_error() -> None:
    async with asking([OK]) as (client, server):
        pass
    with pytest.raises(OSError, match=r"refused|failed"):
        await client.ask(b"GET", "/", timeout_s=5)
    assert server.connections == 0


async def test_a_connection_that_uvloop_finds_closed_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking([OK], [OK]) as (client, server):
        await client.ask(b"GET", "/", timeout_s=5)
        (idle,) = client._idle

        def write(data: bytes) -> None:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

        monkeypatch.setattr(idle.transport, "write", write)
        assert (await client.ask(b"GET", "/", timeout_s=5)).body == b"ok"
        assert server.connections == 2
