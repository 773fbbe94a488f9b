"""`make demo-update`: it shows what it says, and leaves nothing running however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

ROOT = Path(__file__).parents[2]
# The shortest that has all of it.
SHORT = "import sys; from server.update_demo import main; sys.exit(main(good=1, steady_s=0.2))"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def processes_in(folder: Path) -> list[str]:
    """The processes that work in a folder, or were told of it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                place = os.readlink(process / "cwd")
            except OSError:
                continue
            if str(folder) in command or place.startswith(str(folder)):
                found.append(command)
    return found


def test_updates_under_load_lose_nothing(folder: Path) -> None:
    with start(folder, "-c", SHORT) as process:
        _, shown = process.communicate(timeout=180)
    assert process.returncode == 0, shown
    assert len(re.findall(r"\d requests, 0 failed, 0 mixed", shown)) == 2, shown
    assert "$ conch repo rollback reviews" in shown
    figures = [line for line in shown.splitlines() if line.startswith(("publish", "rollback", "steady", "all"))]
    assert len(figures) == 7 + 4, shown


def test_ctrl_c_ends_all_that_it_started(folder: Path) -> None:
    process = start(folder, "-m", "server.update_demo")
    assert process.stderr is not None
    for line in process.stderr:
        if "check every answer" in line:
            break
    assert any("tritonserver" in command for command in processes_in(folder))
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: whatever runs in the foreground
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "stopped" in rest
