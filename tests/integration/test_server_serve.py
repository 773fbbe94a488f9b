"""`conch serve` and `conch status`, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.running import find_running

pytestmark = pytest.mark.integration

CONCH = [str(Path(sys.executable).parent / "conch")]


class Serving:
    """A `conch serve` whose output is read as it comes."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*CONCH, "serve", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(self.temporary), "COLUMNS": "200"},
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line

    def wait_for(self, pattern: str, timeout_s: float = 40.0) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"{pattern} did not appear in:\n{self.text}"
            time.sleep(0.05)
        return found

    def tritonserver(self) -> int:
        """The pid of the tritonserver that serves, by its grandparent."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, rest = stat.parent.name, stat.read_text()
                parent = rest.rpartition(")")[2].split()[1]
                grandparent = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1]
            except (OSError, IndexError):
                continue
            if "(tritonserver)" in rest and int(grandparent) == self.process.pid:
                return int(pid)
        raise AssertionError("no tritonserver runs")

    def exit_code(self, timeout_s: float = 30.0) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join()
        return code

    def left_over(self) -> list[Path]:
        return list(self.temporary.iterdir())


@pytest.fixture
def conch_serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []
    (tmp_path / "repository").mkdir()

    def run(*arguments: str) -> Serving:
        given = " ".join(arguments)
        free = [f"--{name}-port=0" for name in ("http", "grpc", "metrics") if f"--{name}-port" not in given]
        serving = Serving(["--repository", "repository", "--exit-timeout=1", *free, *arguments], tmp_path)
        started.append(serving)
        return serving

    yield run
    for serving in started:
        serving.process.kill()
        serving.exit_code()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_and_what_and_stops_cleanly(
    tmp_path: Path, write_python_model: Any, conch_serve: Any, number: int
) -> None:
    write_python_model(tmp_path / "repository", "tiny")
    serving = conch_serve()
    serving.wait_for(r"HTTP +http://127\.0\.0\.1:\d+")
    serving.wait_for(r"gRPC +grpc://127\.0\.0\.1:\d+")
    serving.wait_for(r"tiny +1 +x +y")
    serving.wait_for("Ctrl-C stops it")
    pid = serving.tritonserver()
    assert serving.left_over()
    found = find_running(tmp_path / "repository")
    assert found is not None
    assert (found.pid, found.control) == (serving.process.pid, "poll")
    assert f"gRPC     {found.grpc_url}" in serving.text
    serving.process.send_signal(number)
    assert serving.exit_code() == 0
    assert find_running(tmp_path / "repository") is None
    assert serving.text.rstrip().endswith("stopped")
    assert "Traceback" not in serving.text
    assert not Path(f"/proc/{pid}").exists()
    assert serving.left_over() == []


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path, write_python_model: Any, conch_serve: Any) -> None:
    slow = """
        import pathlib, time

        class TritonPythonModel:
            def initialize(self, args):
                pathlib.Path("MARKER").touch()
                time.sleep(60)

            def execute(self, requests):
                return []
    """
    marker = tmp_path / "loading"
    write_python_model(tmp_path / "repository", "slow", slow.replace("MARKER", str(marker)))
    serving = conch_serve()
    deadline = time.monotonic() + 30
    while not marker.exists():
        assert time.monotonic() < deadline, serving.text
        time.sleep(0.05)
    pid = serving.tritonserver()
    serving.process.send_signal(signal.SIGINT)
    assert serving.exit_code() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert serving.left_over() == []


def test_a_request_in_flight_is_answered_before_the_end(
    tmp_path: Path, write_python_model: Any, conch_serve: Any
) -> None:
    slow = """
        import pathlib, time
        import triton_python_backend_utils as pb_utils

        class TritonPythonModel:
            def execute(self, requests):
                pathlib.Path("MARKER").touch()
                time.sleep(1.5)
                x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + 1)]) for v in x]
    """
    marker = tmp_path / "running"
    write_python_model(tmp_path / "repository", "slow", slow.replace("MARKER", str(marker)))
    serving = conch_serve("--exit-timeout=10")
    url = serving.wait_for(r"http://127\.0\.0\.1:\d+").group()
    serving.wait_for("Ctrl-C stops it")
    answers: list[float] = []

    def ask() -> None:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [41]}]}
        with urllib.request.urlopen(f"{url}/v2/models/slow/infer", json.dumps(body).encode(), timeout=30) as response:
            answers.append(json.load(response)["outputs"][0]["data"][0])

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 30
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    serving.process.send_signal(signal.SIGINT)
    asking.join()
    assert answers == [42]
    assert serving.exit_code(40) == 0


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, write_python_model: Any, conch_serve: Any) -> None:
    write_python_model(tmp_path / "repository", "tiny")
    serving = conch_serve("--exit-timeout=600")
    host, port = serving.wait_for(r"http://(127\.0\.0\.1):(\d+)").groups()
    serving.wait_for("Ctrl-C stops it")
    with socket.create_connection((host, int(port))) as idle:  # Triton waits for a kept-alive connection
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        serving.process.send_signal(signal.SIGINT)
        serving.wait_for("stopping:")
        time.sleep(3)
        assert serving.process.poll() is None
        serving.process.send_signal(signal.SIGINT)
        assert serving.exit_code() == 0
    assert serving.left_over() == []


def test_what_is_dropped_in_is_served_and_told(tmp_path: Path, write_python_model: Any, conch_serve: Any) -> None:
    repository = tmp_path / "repository"
    write_python_model(repository, "tiny")
    write_python_model(repository, "broken", "import no_such_package_at_all\n")
    serving = conch_serve("--poll-interval=1")
    serving.wait_for(r"not served: broken version 1: .*no_such_package_at_all")
    serving.wait_for(r"fix: +install the package")
    serving.wait_for("Ctrl-C stops it")
    os.rename(write_python_model(tmp_path / "staged", "tiny", version=2, added=2), repository / "tiny" / "2")
    serving.wait_for("tiny version 2 is ready")
    os.rename(write_python_model(tmp_path / "staged", "tiny", "def (\n", version=3), repository / "tiny" / "3")
    serving.wait_for(r"not served: tiny version 3: SyntaxError")


def test_status_of_what_is_served(tmp_path: Path, write_python_model: Any, conch_serve: Any) -> None:
    write_python_model(tmp_path / "repository", "tiny")
    serving = conch_serve()
    url = serving.wait_for(r"http://127\.0\.0\.1:\d+").group()
    serving.wait_for("Ctrl-C stops it")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [4, 1], "data": [1, 2, 3, 4]}]}
    for _ in range(3):
        urllib.request.urlopen(f"{url}/v2/models/tiny/infer", json.dumps(body).encode(), timeout=10).close()
    grpc = serving.wait_for(r"grpc://127\.0\.0\.1:\d+").group()
    documents = [
        json.loads(subprocess.check_output([*CONCH, "status", "--json", "--url", address], timeout=30))
        for address in (url, grpc)
    ]
    assert documents[0]["models"] == documents[1]["models"]
    assert documents[0]["ready"] is True
    [model] = documents[0]["models"]
    assert (model["name"], model["version"], model["state"]) == ("tiny", "1", "READY")
    assert (model["requests"], model["items"], model["executions"], model["average_batch"]) == (3, 12, 3, 4.0)
    assert model["latency_ms"] >= model["compute_ms"] > 0
    table = subprocess.run(
        [*CONCH, "status", "--url", url], capture_output=True, text=True, check=True, timeout=30
    ).stderr
    assert re.search(r"tiny +1 +READY +3 +0 +4\.00", table)


def test_a_taken_port_is_named(tmp_path: Path, conch_serve: Any) -> None:
    first = conch_serve()
    port = first.wait_for(r"http://127\.0\.0\.1:(\d+)").group(1)
    second = conch_serve(f"--http-port={port}")
    assert second.exit_code() == 1
    assert f"port {port} for HTTP is taken" in second.text
    assert "--http-port" in second.text
    assert "Traceback" not in second.text


def test_a_triton_that_dies_is_told_with_its_log(tmp_path: Path, conch_serve: Any) -> None:
    serving = conch_serve("--log-level=info")
    serving.wait_for("Ctrl-C stops it")
    os.kill(serving.tritonserver(), signal.SIGKILL)
    assert serving.exit_code() == 1
    assert "Triton ended by itself (exit code 137)" in serving.text
    assert "Started HTTPService" in serving.text.partition("ended by itself")[2]
    assert serving.left_over() == []


def test_strict_ends_on_a_broken_model(tmp_path: Path, write_python_model: Any, conch_serve: Any) -> None:
    write_python_model(tmp_path / "repository", "broken", "import no_such_package_at_all\n")
    serving = conch_serve("--strict")
    assert serving.exit_code() == 1
    assert "model broken did not load" in serving.text
    assert "Traceback" not in serving.text


def test_an_unknown_flag_shows_what_triton_says(tmp_path: Path, conch_serve: Any) -> None:
    serving = conch_serve("--flag=--no-such-flag")
    assert serving.exit_code() == 1
    assert "ended while it started" in serving.text
    assert "no-such-flag" in serving.text


def test_a_missing_repository_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CONCH, "serve", "--repository", str(tmp_path / "absent")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "conch export" in done.stderr
