"""`conch repo watch` beside a server in poll control: what a training job drops is served, or refused with a reason."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from server.running import announce

pytestmark = pytest.mark.integration

CONCH = str(Path(sys.executable).parent / "conch")


class Watching:
    """A `conch repo watch` whose output is read as it comes."""

    def __init__(self, folder: Path) -> None:
        arguments = [CONCH, "repo", "watch", "outbox", "--repository", "models", "--settle", "0.2"]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=folder)
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"{pattern} did not appear in:\n{self.text}"
            time.sleep(0.02)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join()
        return code


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[], Watching]]:
    started: list[Watching] = []

    def start() -> Watching:
        started.append(Watching(tmp_path))
        return started[-1]

    yield start
    for watching in started:
        if watching.process.poll() is None:
            watching.end(signal.SIGKILL)


def test_a_training_jobs_versions(tmp_path: Path, write_python_model: Any, start_server: Any, watch: Any) -> None:
    root, outbox = tmp_path / "models", tmp_path / "outbox"
    write_python_model(root, "tiny", added=1)
    server = start_server(root, control="poll", poll_interval_s=1)

    def drop(run: str, source: str | None = None, added: float = 1) -> None:
        """Written elsewhere, and renamed in."""
        folder = write_python_model(tmp_path / "job" / run, "tiny", source, added=added)
        (outbox / "tiny").mkdir(parents=True, exist_ok=True)
        os.rename(folder, outbox / "tiny" / run)

    def served() -> float:
        with Client(server.grpc_url) as client:
            return float(client.infer("tiny", x=[[1.0]])["y"][0, 0])

    with announce(root, server.http_url, server.grpc_url, "poll"):
        watching = watch()
        drop("run1", added=2)
        watching.wait_for(r"tiny version 2 is published")
        assert served() == 3.0

        drop("run2", "raise RuntimeError('not trained')\n")
        watching.wait_for(r"tiny was not published: .*\n(.*\n)*.*not trained")
        drop("run3", added=4)
        watching.wait_for(r"tiny/run3: arrived")
        assert watching.end(signal.SIGKILL) == -signal.SIGKILL
        assert (outbox / "tiny" / "run3").is_dir()
        assert served() in (3.0, 5.0)

        watching = watch()
        watching.wait_for(r"tiny version 3 is published|already there as version 3")
        assert served() == 5.0
        deadline = time.monotonic() + 10
        while not (outbox / ".published" / "tiny" / "run3").is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert watching.end(signal.SIGINT) == 0
        assert "stopped" in watching.text
        assert "Traceback" not in watching.text

    found = {p.name: json.loads(p.read_text()) for p in outbox.glob(".*/tiny/*.report.json")}
    assert found["run1.report.json"]["version"] == 2
    assert "not trained" in found["run2.report.json"]["got"]
    assert (outbox / ".failed" / "tiny" / "run2" / "model.py").is_file()
    assert (outbox / ".published" / "tiny" / "run1" / "model.py").is_file()
