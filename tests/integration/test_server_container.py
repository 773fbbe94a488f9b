"""The container's life, against a docker that starts the embedded server with what it was told."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conch.errors import ModelLoadError
from server.container import ContainerServer
from server.options import ServerOptions

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
FREE = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=3)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the fake docker on PATH; returns a function that gives what it was asked, call by call."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(ROOT / "tests" / "fakes" / "docker")
    # Its `env python3` is this one.
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    log = tmp_path / "docker.log"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER_LOG", str(log))
    monkeypatch.setenv("FAKE_DOCKER_CHECKOUT", str(ROOT))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def test_it_serves_like_the_embedded_one(tmp_path: Path, write_python_model: Any, asked: Any) -> None:
    write_python_model(tmp_path / "repository", "tiny")
    with ContainerServer(tmp_path / "repository", FREE) as server:
        assert [(m.name, m.state) for m in server.index()] == [("tiny", "READY")]
        assert server.is_running()
    assert server.exit_code() == 0
    calls = asked()
    assert [call[0] for call in calls] == ["version", "run", "rm"]
    assert f"--name={server.name}" in calls[1]
    assert calls[2] == ["rm", "--force", server.name]


def test_a_model_that_fails_ends_and_removes_it(tmp_path: Path, write_python_model: Any, asked: Any) -> None:
    write_python_model(tmp_path / "repository", "broken", "import no_such_package_at_all\n")
    with pytest.raises(ModelLoadError, match="broken"):
        ContainerServer(tmp_path / "repository", FREE).start()
    assert asked()[-1][0] == "rm"


def test_a_client_that_is_killed_leaves_no_container(tmp_path: Path, asked: Any) -> None:
    (tmp_path / "repository").mkdir()
    with ContainerServer(tmp_path / "repository", FREE) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(20) == 137
        deadline = time.monotonic() + 10
        while asked()[-1][0] != "rm":
            assert time.monotonic() < deadline
            time.sleep(0.05)
