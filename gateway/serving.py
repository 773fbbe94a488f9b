"""The gateway's processes: one or several workers on one socket, and how they stop.

A stop goes in order: /ready says no, for ``notice_s``, so that load balancers look elsewhere; then the door closes, and
requests in flight are finished, for ``drain_s`` at most; then the processes end.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from conch.errors import ConchError, ServerError
from conch.terminal import console
from gateway.observe.workers import shared_metrics
from gateway.settings import Settings

RESTART_AFTER_S = 1.0
CANNOT_START = 3  # as uvicorn ends when the application does not start
_STOPS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or Ctrl-C; a second Ctrl-C ends requests in flight. Returns the exit code.

    ``announce`` is called with the address once it is bound. Raises: ServerError when the port is taken, ConfigError.
    """
    listening = bind(settings)
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
    if settings.workers == 1:
        work(settings, listening)
        return 0
    with shared_metrics(settings.workers):
        return _supervise(settings, listening)


def bind(settings: Settings) -> socket.socket:
    """The socket to listen on. Raises: ServerError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        where = f"{settings.host}:{settings.port}"
        fix = "choose another with --port, or stop what listens there"
        raise ServerError("the gateway cannot listen there", where=where, got=error, fix=fix) from error
    listening.set_inheritable(True)
    return listening


def work(settings: Settings, listening: socket.socket) -> None:
    """One worker, until it is told to stop."""
    import uvicorn

    from gateway.app import create_app
    from gateway.observe import logs
    from gateway.security.slow_clients import allow_many_connections

    allow_many_connections()
    logs.configure(settings.log_format, settings.log_level)
    # A line a request: what no line of ours says is not looked up for it.
    # Source: https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    app = create_app(settings)
    gateway = app.state.gateway

    class Server(uvicorn.Server):
        """Says that it stops before it does."""

        closes_at_s = float("inf")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn's own remembers the signal, and dies of it in the end: a stop that was asked for is no failure.
            if gateway.draining:
                self.should_exit = self.force_exit = True
            gateway.draining = True
            self.closes_at_s = time.monotonic() + settings.notice_s

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # What is loaded now stays: the collector need not look through it again and again.
            gc.collect()
            gc.freeze()

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or time.monotonic() >= self.closes_at_s
            return await super().on_tick(counter)

    Server(uvicorn_config(app, settings)).run([listening])


def uvicorn_config(app: Any, settings: Settings) -> Any:
    """How uvicorn serves the app."""
    import uvicorn

    from gateway.security.slow_clients import ImpatientProtocol

    return uvicorn.Config(
        app,
        http=ImpatientProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,  # nothing here asks where a client is
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(int(settings.drain_s), 1),
        timeout_keep_alive=65,  # longer than load balancers keep idle connections, so that they close first
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _supervise(settings: Settings, listening: socket.socket) -> int:
    """Start the workers, start those anew that die, and stop them all. Returns the exit code."""
    context = multiprocessing.get_context("spawn")
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        for worker in workers:
            if worker.is_alive() and worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT if stops > 1 else signal.SIGTERM)

    def start() -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=_worker, args=(settings, listening, os.getpid()))
        worker.start()
        return worker

    workers: list[multiprocessing.process.BaseProcess] = []
    for number in _STOPS:
        signal.signal(number, stop)
    workers += [start() for _ in range(settings.workers)]
    failed = False
    while not stops:
        time.sleep(0.2)
        for index, worker in enumerate(workers):
            if worker.is_alive() or stops:
                continue
            if worker.exitcode == CANNOT_START:  # the next one could not, either
                failed = True
                stop(signal.SIGTERM, None)
                break
            console.print(f"worker {worker.pid} ended with {worker.exitcode}: another one is started")
            time.sleep(RESTART_AFTER_S)
            if not stops:
                workers[index] = start()
    for worker in workers:
        worker.join()
    return int(failed)


def _worker(settings: Settings, listening: socket.socket, parent: int) -> None:
    """A worker process: ends with its parent, however that ended."""

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    os.setsid()  # a terminal's Ctrl-C goes to the parent alone, which passes on what it means
    threading.Thread(target=watch_parent, daemon=True).start()
    try:
        work(settings, listening)
    except ConchError as error:
        console.print(f"error: {error}", markup=False)
        sys.exit(CANNOT_START)
