"""`conch gateway` as a process: several workers, and stops that lose nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Triton, WriteModel
from tests.fakes import slow_text
from tests.gateway_fixtures import wait_for

pytestmark = pytest.mark.integration

TEXT = {"model": "gc_text", "prompt": "20 0.1", "stream": True}


class Command:
    """A `conch gateway` that runs; ``url`` is what it printed."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._log = folder / "gateway.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "conch", "gateway", "--port", "0", *arguments],
                cwd=folder,
                env=os.environ | {"CONCH_GATEWAY_NOTICE_S": "0.5", "PYTHONPATH": str(Path.cwd())} | environment,
                stderr=log,
                stdout=log,
            )
        wait_for(lambda: "gateway " in self.log or self.process.poll() is not None)
        found = re.search(r"gateway +(http\S+)", self.log)
        assert found, self.log
        self.url = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def status(self, path: str) -> int:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{path}", timeout=5).status_code
        return 0

    def stop(self, number: int = signal.SIGTERM, within_s: float = 20) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)


@pytest.fixture
def text_model(triton: Triton, write_python_model: WriteModel) -> str:
    """A Triton's URLs, with a model that takes two seconds for 20 words."""
    write_python_model(triton.repository, "gc_text", slow_text.SOURCE, slow_text.CONFIG)
    triton.load("gc_text")
    return f"{triton.http_url},{triton.grpc_url}"


@contextlib.contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[Command]:
    command = Command(folder, *arguments, **environment)
    try:
        wait_for(lambda: command.status("/ready") == 200)
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(10)


def test_a_stop_says_no_first_and_lets_streams_end(text_model: str, tmp_path: Path) -> None:
    with started(tmp_path, "--server", text_model) as command:
        lines: list[str] = []

        def read() -> None:
            with httpx.stream("POST", f"{command.url}/v1/completions", json=TEXT, timeout=30) as answer:
                lines.extend(line for line in answer.iter_lines() if line)

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: command.status("/metrics") == 200 and "gc_text" in httpx.get(f"{command.url}/metrics").text)
        command.process.send_signal(signal.SIGTERM)
        wait_for(lambda: command.status("/ready") == 503, 5)
        assert command.process.wait(20) == 0
        reader.join(5)
        assert lines[-1] == "data: [DONE]"
        assert "word20" in "".join(lines)
        assert "Traceback" not in command.log


def test_a_second_ctrl_c_does_not_wait(text_model: str, tmp_path: Path) -> None:
    with started(tmp_path, "--server", text_model) as command:
        long = TEXT | {"prompt": "300 0.1"}
        with httpx.stream("POST", f"{command.url}/v1/completions", json=long, timeout=30) as answer:
            next(answer.iter_lines())
            command.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            began_s = time.monotonic()
            assert command.stop(signal.SIGINT) == 0
            assert time.monotonic() - began_s < 10


def test_workers_share_a_port_and_one_that_dies_is_replaced(text_model: str, tmp_path: Path) -> None:
    with started(tmp_path, "--server", text_model, "--workers", "2") as command:
        before = children(command.process.pid)
        assert len(before) >= 2
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: "another one is started" in command.log)
        wait_for(lambda: len(set(children(command.process.pid)) - set(before)) > 0)
        wait_for(lambda: command.status("/ready") == 200)
        answers = [httpx.get(f"{command.url}/v1/models", timeout=10).status_code for _ in range(10)]
        assert set(answers) == {200}
        assert command.stop() == 0
        assert children(command.process.pid) == []


def children(pid: int) -> list[int]:
    """The workers of a supervisor: its children that run the gateway."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == pid and "spawn_main" in (path.parent / "cmdline").read_text():
                found.append(int(path.parent.name))
    return sorted(found)


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "conch", "gateway", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_that_is_taken_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run(tmp_path, "--server", "http://127.0.0.1:1", "--port", port)
    assert ended.returncode == 1
    assert port in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_prints_the_settings_as_they_were_understood(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("queue_limit: 3\nservers: [http://h:8000]\nport: 80\n")
    ended = run(tmp_path, "--config", "gateway.yaml", "--port", "81", "--check", CONCH_GATEWAY_QUEUE_LIMITS="{chat: 2}")
    known = json.loads(ended.stdout)
    assert (known["queue_limit"], known["queue_limits"], known["port"]) == (3, {"chat": 2}, 81)
    assert known["servers"] == [{"grpc": "grpc://h:8001", "http": "http://h:8000"}]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_keeps_it_from_starting_ends_it_with_a_message(tmp_path: Path, workers: str) -> None:
    (tmp_path / "keys.yaml").write_text("[")
    ended = run(tmp_path, "--server", "http://127.0.0.1:1", "--port", "0", "--workers", workers, "--keys", "keys.yaml")
    assert ended.returncode == 1
    assert "error: " in ended.stderr
    assert "keys.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr
