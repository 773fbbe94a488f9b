"""Which server is asked, by what is known of them; no server runs here."""

from __future__ import annotations

import pytest

from conch.errors import ServerUnavailable
from gateway.pool import Pool, PooledServer, State
from gateway.settings import Server


def pool(*states: State) -> Pool:
    servers = Pool([Server(f"grpc://h{i}:1", f"http://h{i}:1") for i in range(len(states))], {})
    for server, state in zip(servers.servers, states, strict=True):
        server.state = state
        server.models = {"everywhere": ("1",)}
    return servers


def names(*servers: PooledServer) -> list[str]:
    return [s.name for s in servers]


def test_the_server_with_the_fewest_requests_is_asked() -> None:
    servers = pool("up", "up", "up")
    for server, count in zip(servers.servers, (3, 1, 2), strict=True):
        server.in_flight = count
    assert servers.choose("everywhere").name == "h1:1"


def test_equal_servers_take_turns() -> None:
    servers = pool("up", "up")
    assert names(*(servers.choose("everywhere") for _ in range(4))) == ["h0:1", "h1:1", "h0:1", "h1:1"]


def test_a_server_that_has_the_model_goes_before_one_that_has_not() -> None:
    servers = pool("up", "up")
    servers.servers[1].models = {"rare": ("1",)}
    servers.servers[1].in_flight = 9
    assert servers.choose("rare").name == "h1:1"
    assert servers.choose("nowhere").name == "h0:1"


def test_those_in_doubt_are_asked_last_and_those_down_never() -> None:
    servers = pool("down", "doubted", "up")
    up, doubted = servers.choose("everywhere"), servers.choose("everywhere", beside=servers.servers[2:])
    assert names(up, doubted) == ["h2:1", "h1:1"]
    with pytest.raises(ServerUnavailable, match="no model server"):
        servers.choose("everywhere", beside=servers.servers[1:])


def test_a_failure_casts_doubt_and_asks_for_a_look() -> None:
    server = pool("up").servers[0]
    server.doubt("refused")
    assert (server.state, server.look.is_set()) == ("doubted", True)


def test_what_changed_is_told_by_name() -> None:
    servers, told = pool("up", "up"), []
    servers.changed = told.append
    servers._merge()
    servers.servers[0].models = {"everywhere": ("1", "2"), "new": ("10", "9")}
    servers._merge()
    servers._merge()
    assert told == [frozenset({"everywhere"}), frozenset({"everywhere", "new"})]
    assert servers.models["everywhere"] == ("1", "2")
    assert servers.is_ready("everywhere", "2")
    assert not servers.is_ready("everywhere", "3")


async def test_a_server_within_the_block_counts_as_busy() -> None:
    servers = pool("up")
    async with servers.server("everywhere") as server:
        assert server.in_flight == 1
    assert server.in_flight == 0
