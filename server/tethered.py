"""A child process that lives no longer than this one, with its log in a file. See tether.py for how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ServerError

TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True)
class Launch:
    """What to run, and how it ends.

    ``grace_s`` is the time between SIGTERM and SIGKILL. ``cleanup`` are commands for afterwards; ``shm_prefix`` begins
    the names of the shared memory that the process leaves when it is killed.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    grace_s: float
    cleanup: tuple[tuple[str, ...], ...] = ()
    shm_prefix: str = ""


class TetheredProcess:
    """One running command. ``scratch`` is a folder that goes when this process dies without removing it."""

    def __init__(self, launch: Launch, *, log_path: Path, scratch: Path) -> None:
        self._launch = launch
        reader, writer = os.pipe()
        asked = {
            "parent": os.getpid(),
            "pid_fd": writer,
            "grace_s": launch.grace_s,
            "command": launch.command,
            "cleanup": launch.cleanup,
            "shm_prefix": launch.shm_prefix,
            "scratch": str(scratch),
        }
        try:
            with open(log_path, "wb") as log, os.fdopen(reader, "rb") as pids:
                try:
                    self._tether = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(TETHER), json.dumps(asked)],
                        cwd=launch.folder,
                        env=dict(launch.environment),
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
            raise ServerError("the server could not be run", where=launch.command[0], got=error) from error
        if not told:
            self._tether.wait()
            raise ServerError("the server could not be run", got=log_path.read_text(errors="replace").strip())
        self.pid = int(told)

    def exit_code(self) -> int | None:
        """The command's exit code, 128 and the signal's number when it was killed; None while it runs."""
        return self._tether.poll()

    def wait(self, timeout_s: float | None) -> int | None:
        """Block until it ends; its exit code, or None when the time is over first."""
        try:
            return self._tether.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.exit_code() is None:
            self._tether.send_signal(signal.SIGTERM)
        if self.wait(self._launch.grace_s + 10.0) is None:
            self.kill()

    def kill(self) -> None:
        """End it at once, and wait until it has."""
        if self.exit_code() is None:
            self._tether.send_signal(signal.SIGQUIT)
        if self.wait(70.0) is None:  # the tether itself hangs, in a cleanup command that cannot be killed
            self._tether.kill()
            self._tether.wait()
