"""Start a contender's processes, wait until they answer, and leave none of them behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perf.contenders.environments import Unavailable
from server.tethered import Launch, TetheredProcess

ROOT = Path(__file__).resolve().parents[2]
MARK = "CONCH_BENCH_RUN"
START_TIMEOUT_S = 120.0
GRACE_S = 15.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    command: Callable[[Path], Sequence[str]],
    settings: Mapping[str, Any],
    ready: Callable[[], object],
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server until the block ends; yields its pid once ``ready`` raises no OSError.

    ``command`` is given a scratch folder with a short path. Raises: Unavailable, with the end of what it printed.
    """
    scratch = Path(tempfile.mkdtemp(prefix="conch-bench-"))
    mark = uuid.uuid4().hex
    own = {MARK: mark, "CONCH_BENCH": json.dumps({**settings, "scratch": str(scratch)}), "PYTHONPATH": str(ROOT)}
    launch = Launch(
        command=tuple(command(scratch)),
        environment={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), **own},
        folder=scratch,
        grace_s=GRACE_S,
    )
    log = scratch / "output.log"
    try:
        process = TetheredProcess(launch, log_path=log, scratch=scratch)
        try:
            _wait(process, ready, log)
            yield process.pid
        finally:
            process.end()
            _sweep(mark)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _wait(process: TetheredProcess, ready: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.exit_code() is None and time.monotonic() < deadline:
        try:
            ready()
        except OSError:
            time.sleep(0.2)
            continue
        time.sleep(2)  # what answered is one worker of several
        return
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    why = f"it ended with {process.exit_code()}" if process.exit_code() is not None else "it did not become ready"
    raise Unavailable(
        f"it could not be started: {why}: {lines[-1].strip() if lines else 'no output'}", got="\n".join(lines[-20:])
    )


def _sweep(mark: str) -> None:
    """End what the server started and left behind, in sessions of its own: they carry its mark in their environment."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5
        while found := _marked(mark):
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float = 30.0) -> tuple[bytes, Mapping[str, str]]:
    """One answer, and its headers. Raises: OSError, with the server's own words where it has any."""
    request = urllib.request.Request(url, body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        raise OSError(f"{error}: {error.read()[:500].decode(errors='replace')}") from error


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor seconds that these processes and all that they started have taken, of those that still live."""
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError):
            # After the name, which is in parentheses and may hold spaces: state, parent; user and system time.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            spent[int(folder.name)] = int(fields[11]) + int(fields[12])
    total = 0
    for pid in spent:
        at = pid
        while at in parents and at not in pids:
            at = parents[at]
        total += spent[pid] if at in pids else 0
    return total / TICKS_PER_SECOND
