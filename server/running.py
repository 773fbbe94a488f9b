"""Which server serves a repository: a server says so in a file beside it, and commands that change it look there.

    ROOT/../.ROOT.staging/servers/PID.json      its addresses; locked for as long as it runs

The lock goes with the process, however that ends, so a file that nobody holds a lock on is from a server that is gone.
No header that opens a restricted API is written down: such a server is found, and its header is given on the command
line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from conch.repository import Repository


@dataclass(frozen=True)
class Running:
    """A server that runs: ``pid`` of the `conch serve`, addresses, ``control`` as its option says, ``since`` in UTC."""

    pid: int
    http_url: str
    grpc_url: str
    control: str
    since: str


@contextmanager
def announce(root: Path | str, http_url: str, grpc_url: str, control: str) -> Iterator[None]:
    """Say that this process serves a repository, until the block ends.

    Where nothing can be written beside the repository, nothing is said: serving does not depend on it.
    """
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    running = Running(os.getpid(), http_url, grpc_url, control, since)
    with contextlib.ExitStack() as held:
        try:
            path = _write(_folder(root), running, held)
        except OSError:
            path = None
        try:
            yield
        finally:
            if path is not None:
                path.unlink(missing_ok=True)


def find_running(root: Path | str) -> Running | None:
    """The server that serves a repository now: of several, the one that began last; None when there is none."""
    found = [running for path in _folder(root).glob("*.json") if (running := _read(path)) is not None]
    return max(found, key=lambda r: (r.since, r.pid), default=None)


def _folder(root: Path | str) -> Path:
    """Where servers of a repository announce themselves; the same however the repository is named."""
    return Repository(Path(root).resolve()).staging / "servers"


def _write(folder: Path, running: Running, held: contextlib.ExitStack) -> Path:
    """Write the file under a lock that ``held`` lets go. Raises: OSError."""
    held.callback(os.close, _use(folder))
    hidden = folder / f".{running.pid}"
    hidden.write_text(json.dumps(dataclasses.asdict(running)) + "\n", encoding="utf-8")
    held.callback(os.close, _lock(hidden, fcntl.LOCK_EX))
    path = folder / f"{running.pid}.json"
    os.replace(hidden, path)  # locked before it can be read
    return path


def _use(folder: Path) -> int:
    """Make the folder, and hold a shared lock: who clears away abandoned stages removes what nobody has locked."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(folder, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # it was cleared away while we waited for the lock


def _read(path: Path) -> Running | None:
    """What a file says, when its server still runs; a file of one that is gone is removed."""
    try:
        descriptor = _lock(path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Running(**json.loads(path.read_text(encoding="utf-8")))
        return None
    except OSError:
        return None
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    os.close(descriptor)
    return None


def _lock(path: Path, how: int) -> int:
    """Lock a file or folder; the lock lives as long as the descriptor. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
