"""A Triton server of our own, from the binary in the installed nvidia-pytriton: no Docker, no root, no GPU needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from conch.errors import ServerError
from server import binary
from server.lifecycle import TritonServer
from server.options import ServerOptions, flags

TETHER = Path(__file__).with_name("tether.py")
SHARED_MEMORY = Path("/dev/shm")
# After the exit timeout Triton still unloads its models.
UNLOAD_S = 5.0


class EmbeddedServer(TritonServer):
    """A tritonserver process on one or several repositories.

        with EmbeddedServer(Path("model_repository"), ServerOptions(http_port=0)) as server:
            print(server.http_url)

    It ends with the block, with this process however that ends, and with nothing else: not with the thread that
    started it. It runs in an empty folder, so that models import what is installed and nothing of this checkout.
    ``log_path`` keeps the log there; otherwise it goes with the server. ``environment`` adds to this process's.
    """

    def __init__(
        self,
        repository: Path | str | Sequence[Path | str],
        options: ServerOptions = ServerOptions(),  # noqa: B008  (frozen)
        *,
        strict: bool = True,
        start_timeout_s: float = 300.0,
        log_path: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(repository, options, strict=strict, start_timeout_s=start_timeout_s)
        self._kept_log = log_path
        self._environment = dict(environment or {})
        self._scratch: Path | None = None
        self._tether: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._last_log = ""
        self._shm_prefix = ""

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    @property
    def pid(self) -> int:
        """The process of tritonserver itself. Raises: ServerError before it was started."""
        if self._pid is None:
            raise ServerError("the server was not started", fix="call start()")
        return self._pid

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

    def shared_memory(self) -> list[Path]:
        """The regions that the Python backend holds for this server."""
        return sorted(SHARED_MEMORY.glob(f"{self._shm_prefix}*")) if self._shm_prefix else []

    def _launch(self) -> None:
        installation = binary.find()
        binary.check_environment()
        self._scratch = Path(tempfile.mkdtemp(prefix="conch-server-"))
        backends, empty = self._scratch / "backends", self._scratch / "empty"
        empty.mkdir()
        binary.assemble(installation, backends)
        # Regions in /dev/shm go by this name, so that those of a server that was killed can be told and removed.
        self._shm_prefix = f"conch_{uuid.uuid4().hex[:12]}_"
        command = [
            str(installation.binary),
            *flags(self.options, self.repositories, gpu=binary.has_gpu()),
            f"--backend-directory={backends}",
            f"--cache-directory={installation.caches}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
        ]
        variables = binary.environment(installation, {**os.environ, **self._environment})
        grace_s = self.options.exit_timeout_s + UNLOAD_S
        reader, writer = os.pipe()
        try:
            with open(self.log_path, "wb") as log, os.fdopen(reader, "rb") as pids:
                try:
                    arguments = [os.getpid(), grace_s, writer, self._scratch, self._shm_prefix]
                    self._tether = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(TETHER), *map(str, arguments), *command],
                        cwd=empty,
                        env=variables,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=(writer,),
                        start_new_session=True,
                    )
                finally:
                    os.close(writer)
                told = pids.read()
        except OSError as error:
            raise ServerError("the embedded server could not be run", where=installation.binary, got=error) from error
        if not told:
            raise ServerError("the embedded server could not be run", got=self.log().strip() or "no word from it")
        self._pid = int(told)

    def is_running(self) -> bool:
        """Whether tritonserver runs."""
        return self._tether is not None and self._tether.poll() is None

    def exit_code(self) -> int | None:
        """Tritonserver's exit code, 128 and the signal's number when it was killed; None while it runs."""
        return None if self._tether is None else self._tether.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Block until the server ends; its exit code, or None when the time is over first."""
        if self._tether is None:
            return None
        try:
            return self._tether.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once, requests in flight or not."""
        if self.is_running() and self._tether is not None:
            self._tether.send_signal(signal.SIGQUIT)
            self._tether.wait()

    def _end(self) -> None:
        if self._tether is not None:
            if self._tether.poll() is None:
                self._tether.terminate()
            try:
                self._tether.wait(self.options.exit_timeout_s + 2 * UNLOAD_S)
            except subprocess.TimeoutExpired:
                self._tether.kill()
                self._tether.wait()
        for region in self.shared_memory():  # there are some only when the tether was killed
            region.unlink(missing_ok=True)
        if self._scratch is not None:
            self._last_log = self.log()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
