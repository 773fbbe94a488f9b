"""Where a server listens, how to prove who we are, and which of several addresses to ask next."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from conch.errors import InvalidInput

DEFAULT_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}

# The largest message that protobuf, and so gRPC, can carry at all.
MAX_MESSAGE_BYTES = 2**31 - 1

# Triton checks a restricted gRPC protocol against the metadata key with this prefix, and HTTP against the plain header.
GRPC_RESTRICTED_PREFIX = "triton-grpc-protocol-"


@dataclass(frozen=True)
class Address:
    """One parsed URL: ``grpc://host:8001``, ``https://host/triton``."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def is_grpc(self) -> bool:
        """Whether the address speaks gRPC."""
        return self.scheme in ("grpc", "grpcs")

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("https", "grpcs")

    @property
    def target(self) -> str:
        """What tritonclient takes: host, port and path without the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.path}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.target}"


@dataclass(frozen=True)
class TLS:
    """How to check the server and to prove ourselves, by PEM files.

    ``ca_file`` holds the authorities to trust, the system's when None. ``cert_file`` and ``key_file`` are the client's
    own, for a server that asks for them. ``insecure`` (https only) trusts any certificate: for a trial, not for use.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False


@dataclass(frozen=True)
class ConnectionOptions:
    """What a transport needs beside the address. ``headers`` go with every request."""

    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TLS = field(default_factory=TLS)
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def metadata(self) -> dict[str, str]:
        """The headers as gRPC metadata: lower case, and each also under the name that a restricted protocol reads."""
        plain = {name.lower(): value for name, value in self.headers.items()}
        return plain | {
            GRPC_RESTRICTED_PREFIX + name: value
            for name, value in plain.items()
            if not name.startswith(GRPC_RESTRICTED_PREFIX)
        }


def parse_address(url: str) -> Address:
    """Parse one URL. Raises: InvalidInput when the scheme is missing or unknown, or the host or port is."""
    schemes = "http://, https://, grpc:// or grpcs://"
    if not isinstance(url, str):
        raise InvalidInput("an address is text", got=f"{type(url).__name__} {url!r}", expected=f"a URL with {schemes}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{url!r} is no address", got=error, expected=f"a URL with {schemes}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise InvalidInput(
            f"{url!r} is no address of a Triton server",
            got=f"scheme {parts.scheme!r}" if "//" in url else "no scheme",
            expected=f"a URL with {schemes}",
            fix=f"try http://{url} (Triton's HTTP port) or grpc://{url} (its gRPC port)" if "//" not in url else None,
        )
    if parts.scheme.startswith("grpc") and parts.path not in ("", "/"):
        raise InvalidInput("a gRPC address has no path", got=url, expected=f"{parts.scheme}://{parts.netloc}")
    return Address(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"))


def parse_addresses(urls: str | Sequence[str]) -> tuple[Address, ...]:
    """Parse one URL or several. Raises: InvalidInput."""
    listed = [urls] if isinstance(urls, str) else list(urls)
    if not listed:
        raise InvalidInput("no address was given", got=urls, expected="a URL, or a list of them")
    return tuple(parse_address(url) for url in listed)


class Balancer:
    """Deals requests out to the addresses in turn, and passes over one that failed a moment ago.

    When all have failed, the one that failed longest ago is tried. Thread-safe.
    """

    def __init__(self, addresses: Sequence[Address], clock: Callable[[], float], rest_s: float = 2.0) -> None:
        self._addresses = tuple(addresses)
        self._clock = clock
        self._rest_s = rest_s
        self._failed_at = dict.fromkeys(self._addresses, -math.inf)
        self._next = 0
        self._lock = threading.Lock()

    def choose(self, among: Sequence[Address] = ()) -> Address:
        """The address to ask next; ``among`` empty stands for all."""
        with self._lock:
            turn = [*self._addresses[self._next :], *self._addresses[: self._next]]
            turn = [a for a in turn if not among or a in among]
            rested = [a for a in turn if self._clock() - self._failed_at[a] >= self._rest_s]
            chosen = rested[0] if rested else min(turn, key=self._failed_at.__getitem__)
            self._next = (self._addresses.index(chosen) + 1) % len(self._addresses)
            return chosen

    def failed(self, address: Address) -> None:
        """Set an address aside for a moment."""
        with self._lock:
            self._failed_at[address] = self._clock()

    def answered(self, address: Address) -> None:
        """Take an address back into the turn."""
        with self._lock:
            self._failed_at[address] = -math.inf
