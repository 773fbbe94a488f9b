"""Free ports, and whether a port is free."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from conch.errors import ServerError
from server.options import ServerOptions

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10240


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port that only has old connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(host: str, count: int) -> list[int]:
    """Ports that are free now, below the range that the kernel gives to outgoing connections.

    A port of that range could be taken by any connection while the models load; these only by another server that
    asks for the very number. Raises: ServerError.
    """
    try:
        highest = int(_RANGE.read_text(encoding="ascii").split()[0]) - 1
    except (OSError, ValueError):
        highest = 32767
    if highest - _LOWEST < 1000:
        highest = 65535
    chosen: list[int] = []
    for port in random.SystemRandom().sample(range(_LOWEST, highest), 500):
        if is_free(host, port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise ServerError("no free port was found", where=host, got=f"500 ports tried from {_LOWEST} to {highest}")


def resolve(options: ServerOptions) -> ServerOptions:
    """The options with every port of 0 replaced by a free one.

    Raises: ServerError when a given port is taken, naming it, or when two are the same.
    """
    asked = {"HTTP": options.http_port, "gRPC": options.grpc_port}
    if options.metrics.enabled:
        asked["metrics"] = options.metrics_port
    given = [port for port in asked.values() if port]
    for name, port in asked.items():
        if port and given.count(port) > 1:
            raise ServerError("two endpoints cannot share a port", got=asked, fix="give each its own, or 0")
        if port and not is_free(options.host, port):
            raise ServerError(
                f"port {port} for {name} is taken",
                where=f"{options.host}:{port}",
                fix=f"stop what listens there (`ss -ltnp 'sport = :{port}'` shows it), or choose another with "
                f"--{name.lower()}-port; 0 takes any free one",
            )
    fresh = iter(choose(options.host, 3))
    return options.with_ports(
        options.http_port or next(fresh), options.grpc_port or next(fresh), options.metrics_port or next(fresh)
    )
