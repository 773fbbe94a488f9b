"""Fixtures that start the real gateway: the app on uvicorn, in a thread, on a free port, in front of a real Triton."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that listens. ``state`` is its `gateway.gateway.Gateway`, alive in another thread: look, no more."""

    url: str
    state: Any
    server: Any

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.server.should_exit = True


StartGateway = Callable[..., RunningGateway]


@contextlib.contextmanager
def running_gateway(*tritons: Any, **settings: Any) -> Iterator[RunningGateway]:
    """A gateway before Tritons (whatever has ``grpc_url`` and ``http_url``), with these `gateway.settings.Settings`."""
    import uvicorn

    from gateway.app import create_app
    from gateway.serving import uvicorn_config
    from gateway.settings import Server, Settings

    servers = tuple(Server(t.grpc_url, t.http_url) for t in tritons)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    port = listening.getsockname()[1]
    chosen = Settings(**{"servers": servers, "drain_s": 5.0, **settings})
    app = create_app(chosen)
    server = uvicorn.Server(uvicorn_config(app, chosen))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started, "the gateway did not start"
        gateway = RunningGateway(f"http://127.0.0.1:{port}", app.state.gateway, server)
        yield gateway
    finally:
        server.should_exit = True
        thread.join(15)
        if thread.is_alive():
            server.force_exit = True
            thread.join(15)
        listening.close()


def wait_ready(gateway: RunningGateway, within_s: float = 30.0) -> None:
    """Wait until /ready says 200."""

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{gateway.url}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    wait_for(ready, within_s)


def wait_for(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.02)


@pytest.fixture
def start_gateway() -> Iterator[StartGateway]:
    """A function (*tritons, **settings) -> RunningGateway; all are stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(*tritons: Any, **settings: Any) -> RunningGateway:
            return running.enter_context(running_gateway(*tritons, **settings))

        yield start


@pytest.fixture(scope="session")
def gateway(triton: Any) -> Iterator[RunningGateway]:
    """The shared gateway, before the shared Triton, with the settings' defaults: no keys, no limits, no cache."""
    with running_gateway(triton) as running:
        wait_ready(running)
        yield running
