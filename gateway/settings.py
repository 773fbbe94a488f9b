"""A gateway's settings: a YAML file, then the environment, then flags; each key checked.

    servers:                          # Tritons, balanced by requests in flight
      - http: http://127.0.0.1:8000
        grpc: grpc://127.0.0.1:8001
    triton_headers: {}                # sent to them with every request: opens restricted APIs
    repository: model_repository      # aliases and canary weights (conch.json); publish writes there
    host: 127.0.0.1
    port: 9000
    workers: 1                        # processes
    timeout_s: 300                    # the longest that a request may take, streams included
    notice_s: 1                       # at a stop: how long /ready says no before the door closes
    drain_s: 30                       # and how long requests in flight are waited for
    queue_limit: 256                  # requests in flight a model and process; the next is refused with 429
    queue_limits: {chat: 16}
    fallbacks: {chat: [chat_small]}
    body_size_mb: 32
    keys_file: keys.yaml              # API keys; without it everybody may ask, and nobody is an admin
    limits:                           # read again when the file changes
      requests: [100/minute]          # a key
      tokens: [100000/day]
      keys: {KEY_ID: {requests: [10/second]}}
      store: memory                   # or redis://HOST:PORT/DB
      when_store_fails: allow         # or refuse
    cache: {ttl_s: 60, max_mb: 64, store: memory}  # no cache without it
    cors_origins: [https://example.org]
    tls_cert: cert.pem
    tls_key: key.pem
    audit_log: audit.jsonl
    audit_contents: false             # prompts and inputs, too
    admin: true                       # the admin endpoints
    publish_from: outbox              # the folder that an admin may publish versions from; without it none
    page: true
    log_format: text                  # or json
    log_level: info

In the environment, CONCH_GATEWAY_PORT is the key port, and so on for each; what is not one word is YAML. Relative paths
of the file are meant from its folder. Knows nothing of FastAPI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENVIRONMENT = "CONCH_GATEWAY_"


@dataclass(frozen=True)
class Server:
    """One Triton: its HTTP and its gRPC port."""

    grpc: str = "grpc://127.0.0.1:8001"
    http: str = "http://127.0.0.1:8000"

    @property
    def name(self) -> str:
        """Its HTTP host and port: what logs and metrics call it."""
        return self.http.partition("://")[2]


@dataclass(frozen=True)
class Rates:
    """Limits of one key, in the notation of the library `limits`: "100/minute"."""

    requests: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What every key may ask; ``keys`` are those that differ, by key id."""

    requests: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    keys: Mapping[str, Rates] = field(default_factory=dict)
    store: str = "memory"
    when_store_fails: str = "allow"

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return bool(self.requests or self.tokens or self.keys)


@dataclass(frozen=True)
class CacheSettings:
    """The result cache: how long an answer is good, how much is kept in memory, and where."""

    ttl_s: float = 60.0
    max_mb: float = 64.0
    store: str = "memory"


@dataclass(frozen=True)
class Settings:
    """All of it; ``file`` is where it came from, for what is read again when it changes."""

    servers: tuple[Server, ...] = (Server(),)
    triton_headers: Mapping[str, str] = field(default_factory=dict)
    repository: Path | None = None
    host: str = "127.0.0.1"
    port: int = 9000
    workers: int = 1
    timeout_s: float = 300.0
    notice_s: float = 1.0
    drain_s: float = 30.0
    queue_limit: int = 256
    queue_limits: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    body_size_mb: float = 32.0
    keys_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
    cache: CacheSettings | None = None
    cors_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    audit_log: Path | None = None
    audit_contents: bool = False
    admin: bool = True
    publish_from: Path | None = None
    page: bool = True
    log_format: str = "text"
    log_level: str = "info"
    file: Path | None = None

    @property
    def body_bytes(self) -> int:
        """The largest body, in bytes."""
        return int(self.body_size_mb * 2**20)

    def queue_limit_of(self, model: str) -> int:
        """How many requests to a model one process has in flight at most."""
        return self.queue_limits.get(model, self.queue_limit)
