"""Ports: free ones are free, taken ones are named."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from conch.errors import ServerError
from server import ports
from server.options import Metrics, ServerOptions


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_listening_port_is_not_free(taken: int) -> None:
    assert not ports.is_free("127.0.0.1", taken)
    assert not ports.is_free("0.0.0.0", taken)


def test_chosen_ports_differ_and_can_be_bound() -> None:
    chosen = ports.choose("127.0.0.1", 3)
    assert len(set(chosen)) == 3
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", chosen[0]))


def test_chosen_ports_are_none_that_the_kernel_gives_to_connections() -> None:
    lowest = int(ports._RANGE.read_text().split()[0])
    assert lowest <= ports._LOWEST + 1000 or all(p < lowest for p in ports.choose("127.0.0.1", 20))


def test_zeros_are_replaced_and_given_ports_kept() -> None:
    given = ports.choose("127.0.0.1", 1)[0]
    resolved = ports.resolve(ServerOptions(http_port=given, grpc_port=0, metrics_port=0))
    assert resolved.http_port == given
    assert 0 not in (resolved.grpc_port, resolved.metrics_port)
    assert len({resolved.http_port, resolved.grpc_port, resolved.metrics_port}) == 3


@pytest.mark.parametrize(
    ("field", "name", "option"),
    [
        ("http_port", "HTTP", "--http-port"),
        ("grpc_port", "gRPC", "--grpc-port"),
        ("metrics_port", "metrics", "--metrics-port"),
    ],
)
def test_a_taken_port_is_named_with_its_option(taken: int, field: str, name: str, option: str) -> None:
    asked = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, field: taken}
    with pytest.raises(ServerError, match=f"port {taken} for {name} is taken") as raised:
        ports.resolve(ServerOptions(**asked))  # type: ignore[arg-type]
    assert option in str(raised.value.fix)


def test_without_metrics_their_port_does_not_matter(taken: int) -> None:
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=taken, metrics=Metrics(enabled=False))
    assert ports.resolve(options).http_port


def test_two_endpoints_on_one_port_are_refused() -> None:
    with pytest.raises(ServerError, match="cannot share a port"):
        ports.resolve(ServerOptions(http_port=15000, grpc_port=15000, metrics_port=0))
