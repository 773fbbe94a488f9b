"""What every kind of server shares: addresses, waiting until the models are ready, saying what failed, stopping.

A subclass says what to run; nothing here knows whether it is a process or a container.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from conch.errors import ServerError
from server import http_api
from server.http_api import ModelState
from server.load_failures import PORT_TAKEN, load_error, reason_in_log, tail, tidy
from server.options import ALL_MODELS, ServerOptions
from server.ports import resolve
from server.tethered import Launch, TetheredProcess

POLL_S = 0.05
# After its exit timeout Triton may still be unloading models.
UNLOAD_S = 5.0
# The reason that the index gives for a version that was let go on purpose.
UNLOADED = "unloaded"

Self = TypeVar("Self", bound="TritonServer")


class TritonServer(ABC):
    """One Triton server on one or several repositories, from `start` to `stop`.

    It ends with the `with` block, with this process however that ends, and with nothing else: not with the thread that
    started it. ``strict`` makes `start` raise when a model fails to load; otherwise the others are served, and
    `failures` tells. ``log_path`` keeps the log there; otherwise it goes with the server.
    """

    def __init__(
        self,
        repository: Path | str | Sequence[Path | str],
        options: ServerOptions = ServerOptions(),  # noqa: B008  (frozen)
        *,
        strict: bool = True,
        start_timeout_s: float = 300.0,
        log_path: Path | None = None,
    ) -> None:
        listed = [repository] if isinstance(repository, Path | str) else list(repository)
        self.repositories = tuple(Path(p).absolute() for p in listed)
        self.asked = options
        self.options = options
        self.strict = strict
        self.start_timeout_s = start_timeout_s
        self._kept_log = log_path
        self._owner = os.getpid()
        self._started = False
        self._scratch: Path | None = None
        self._process: TetheredProcess | None = None
        self._last_log = ""

    @abstractmethod
    def _prepare(self, scratch: Path) -> Launch:
        """What to run with ``self.options``, whose ports are real; files go into ``scratch``. Raises: ServerError."""

    @property
    def pid(self) -> int:
        """The process that was started. Raises: ServerError before."""
        if self._process is None:
            raise ServerError("the server was not started", fix="call start()")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The file that the server logs into. Raises: ServerError when there is none: not started, or gone."""
        if self._kept_log is not None:
            return self._kept_log
        if self._scratch is None:
            raise ServerError("there is no log: the server does not run", fix="give log_path to keep one")
        return self._scratch / "server.log"

    def log(self) -> str:
        """All that the server has logged; still there when it has stopped."""
        if self._scratch is not None and self.log_path.is_file():
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        return self._last_log

    def log_since(self, position: int) -> tuple[str, int]:
        """The whole lines that were logged after a position in bytes, and the position for the next call."""
        if self._scratch is None:
            return "", position
        with open(self.log_path, "rb") as file:
            file.seek(position)
            lines, newline, _ = file.read().rpartition(b"\n")
        return lines.decode("utf-8", errors="replace"), position + len(lines) + len(newline)

    def is_running(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.exit_code() is None

    def exit_code(self) -> int | None:
        """The server's exit code, 128 and the signal's number when it was killed; None while it runs.

        Triton ends with 1 when its exit timeout was over before the last model had gone.
        """
        return None if self._process is None else self._process.exit_code()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Block until the server ends; its exit code, or None when the time is over first."""
        return None if self._process is None else self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once, requests in flight or not."""
        if self._process is not None:
            self._process.kill()

    @property
    def http_url(self) -> str:
        """E.g. http://127.0.0.1:8000."""
        return f"http://{self._reachable_host()}:{self.options.http_port}"

    @property
    def grpc_url(self) -> str:
        """E.g. grpc://127.0.0.1:8001."""
        return f"grpc://{self._reachable_host()}:{self.options.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """E.g. http://127.0.0.1:8002/metrics."""
        return f"http://{self._reachable_host()}:{self.options.metrics_port}/metrics"

    def _reachable_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.options.host, self.options.host)

    def start(self) -> None:
        """Start, and block until every model that is to be loaded is ready.

        Raises: ModelLoadError naming each model that failed and why (when strict); ServerError.
        """
        if self._started:
            raise ServerError("this server was started before", where=self.http_url, fix="make a new one")
        for path in self.repositories:
            if not path.is_dir():
                raise ServerError(
                    "there is no such model repository",
                    where=path,
                    fix="export a model into it first (`conch export --help`), or name another folder",
                )
        self._started = True
        atexit.register(self.stop)
        try:
            self._start_on_free_ports()
            failed = self.failures() if self.strict else []
            if failed:
                raise load_error(failed)
        except BaseException:
            self.kill()  # nothing was served yet: there is nothing to wait for
            self.stop()
            raise

    def _start_on_free_ports(self) -> None:
        """Launch and wait. A port that we chose and another program took meanwhile is no error: choose again."""
        chosen = 0 in (self.asked.http_port, self.asked.grpc_port, self.asked.metrics_port)
        for attempts_left in (2, 1, 0):
            self.options = resolve(self.asked)
            self._run()
            if self._wait_until_live():
                return
            log = self.log()
            if not (chosen and attempts_left and PORT_TAKEN.search(log)):
                raise ServerError(
                    f"tritonserver ended while it started (exit code {self.exit_code()})",
                    got=f"the end of its log:\n{tail(log)}",
                    fix="`conch doctor` checks this machine",
                )
            self._end()

    def _run(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="conch-server-"))
        launch = self._prepare(self._scratch)
        self._process = TetheredProcess(launch, log_path=self.log_path, scratch=self._scratch)

    def _end(self) -> None:
        """End it and leave nothing behind; also after a launch that failed half-way."""
        if self._process is not None:
            self._process.end()
        if self._scratch is not None:
            self._last_log = self.log()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _wait_until_live(self) -> bool:
        """Wait until the server answers; False when it ended instead. Raises: ServerError after the timeout."""
        deadline = time.monotonic() + self.start_timeout_s
        headers = self.options.headers("http", "health")
        while time.monotonic() < deadline:
            if not self.is_running():
                return False
            if http_api.is_live(self.http_url, headers):
                return True
            time.sleep(POLL_S)
        raise ServerError(
            f"the server was not ready after {self.start_timeout_s:g} s",
            where=self.http_url,
            got=f"the end of its log:\n{tail(self.log())}",
            fix="a model may take longer to load: give it more time, or see what the log says",
        )

    def index(self) -> list[ModelState]:
        """Every model that the server knows. Raises: ServerUnavailable, ServerError."""
        return http_api.index(self.http_url, self.options.headers("http", "model-repository"))

    def failures(self) -> list[ModelState]:
        """The models that should be served and are not, one row each, causes before what depends on them.

        Waits for models that are still loading. Raises: ServerUnavailable, ServerError.
        """
        deadline = time.monotonic() + self.start_timeout_s
        rows = self.index()
        while any(r.state == "LOADING" for r in rows) and time.monotonic() < deadline:
            time.sleep(POLL_S)
            rows = self.index()
        if self.options.control == "explicit":
            wanted = {n for n in self.options.load_models if n != ALL_MODELS}
            rows += [ModelState(n, "", "", "") for n in sorted(wanted - {r.name for r in rows})]
            if ALL_MODELS not in self.options.load_models:
                # Members of an ensemble are loaded with it, unasked: they show a state.
                rows = [r for r in rows if r.name in wanted or r.state]
        broken = [r for r in rows if r.state not in ("READY", "UNLOADING") and r.reason != UNLOADED]
        log = self.log() if broken else ""
        told = [(r, tidy(r.reason) or reason_in_log(r.name, log)) for r in broken]
        named = [ModelState(r.name, r.version, r.state, reason) for r, reason in told]
        return sorted(named, key=lambda r: ("depends on" in r.reason, r.name, r.version))

    def stop(self) -> None:
        """Stop and leave nothing behind. May be called twice, and does nothing in a forked child."""
        if not self._started or os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        self._end()

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
