"""Addresses, headers, and turns among several servers."""

from __future__ import annotations

import pytest

from clients.address import Balancer, ConnectionOptions, parse_address, parse_addresses
from conch.errors import InvalidInput
from tests.fakes.client_transports import ScriptedServer


@pytest.mark.parametrize(
    ("url", "target", "is_grpc", "is_secure"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, False),
        ("http://triton", "triton:8000", False, False),
        ("https://triton/models/", "triton:443/models", False, True),
        ("grpc://triton", "triton:8001", True, False),
        ("grpcs://triton:9", "triton:9", True, True),
        ("http://[::1]:8000", "[::1]:8000", False, False),
    ],
)
def test_urls_parse(url: str, target: str, is_grpc: bool, is_secure: bool) -> None:
    address = parse_address(url)
    assert (address.target, address.is_grpc, address.is_secure) == (target, is_grpc, is_secure)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("ftp://h", "scheme 'ftp'"),
        ("http://", "address"),
        ("http://h:99999", "address"),
        ("grpc://h:1/path", "no path"),
        (None, "an address is text"),
    ],
)
def test_a_wrong_url_says_what_is_due(url: str, part: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_address(url)
    assert part in str(refused.value)


def test_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no address"):
        parse_addresses([])


def test_grpc_metadata_also_names_headers_as_restricted_protocols_do() -> None:
    metadata = ConnectionOptions({"X-Key": "k", "triton-grpc-protocol-other": "o"}).metadata()
    assert metadata == {"x-key": "k", "triton-grpc-protocol-x-key": "k", "triton-grpc-protocol-other": "o"}


def test_requests_go_round_and_a_failed_address_rests() -> None:
    server = ScriptedServer({})
    a, b, c = addresses = parse_addresses(["http://a", "http://b", "http://c"])
    balancer = Balancer(addresses, server.clock, rest_s=2.0)
    assert [balancer.choose() for _ in range(4)] == [a, b, c, a]
    balancer.failed(b)
    assert [balancer.choose() for _ in range(4)] == [c, a, c, a]
    server.now_s += 2.0
    assert [balancer.choose() for _ in range(3)] == [b, c, a]


def test_when_all_have_failed_the_longest_rested_is_tried() -> None:
    server = ScriptedServer({})
    a, b = addresses = parse_addresses(["http://a", "http://b"])
    balancer = Balancer(addresses, server.clock)
    balancer.failed(b)
    server.now_s += 1.0
    balancer.failed(a)
    assert [balancer.choose(), balancer.choose()] == [b, b]
    balancer.answered(a)
    assert balancer.choose() == a
