"""What a running server says of a repository's models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conch.errors import ConchError
from server.http_api import ModelState
from server.options import GRPC_HEADER_PREFIX

if TYPE_CHECKING:
    from server.rollout.live import Live


@dataclass(frozen=True)
class LiveStates:
    """A server's repository index: the state of every version that it knows."""

    url: str
    models: tuple[ModelState, ...]

    def of(self, name: str, version: int) -> ModelState | None:
        """The line of one version; None when the server does not know it."""
        return next((m for m in self.models if m.name == name and m.version == str(version)), None)

    def loaded(self, name: str) -> tuple[int, ...]:
        """The versions of a model that are READY, lowest first: unversioned requests go to the last."""
        ready = (m.version for m in self.models if m.name == name and m.state == "READY")
        return tuple(sorted(int(v) for v in ready if v.isdigit()))


@dataclass(frozen=True)
class Server:
    """Which server to ask: the one at ``url``, or the one that serves the repository, or none at all."""

    url: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    none: bool = False

    def find(self, root: Path) -> str | None:
        """The address to ask; None where no server is meant or known."""
        from server.running import find_running

        if self.none:
            return None
        running = None if self.url else find_running(root)
        return self.url or (running.http_url if running else None)

    @contextmanager
    def connect(self, root: Path) -> Iterator[Live]:
        """The server to change models on, over gRPC; files only where there is none. Raises: ServerError."""
        from server.rollout.live import NoServer, connect
        from server.running import find_running

        running = None if self.url or self.none else find_running(root)
        url = self.url or (running.grpc_url if running else None)
        with contextlib.closing(connect(url, dict(self.headers)) if url and not self.none else NoServer()) as live:
            yield live

    def states(self, root: Path) -> LiveStates | None:
        """What the server says; None where there is none. Raises: ServerUnavailable, ServerError."""
        url = self.find(root)
        return ask(url, dict(self.headers)) if url else None

    def states_or_reason(self, root: Path) -> tuple[LiveStates | None, str]:
        """As `states`, but a server that was found, not named, and does not answer is a reason, not an error."""
        try:
            return self.states(root), ""
        except ConchError as error:
            if self.url:
                raise
            return None, f"a server was found at {error.where} and did not answer: {error.got}"


def ask(url: str, headers: Mapping[str, str]) -> LiveStates:
    """The repository index of a server. Raises: ServerUnavailable, ServerError."""
    from server.status import read

    if url.startswith("grpc"):
        headers = {GRPC_HEADER_PREFIX + k.removeprefix(GRPC_HEADER_PREFIX): v for k, v in headers.items()}
    found = read(url, headers)
    return LiveStates(url, tuple(ModelState(m.name, m.version, m.state, m.reason) for m in found.models))
