"""The docker command line, and what is said where Docker is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conch.errors import ServerError
from server.container import ContainerServer, docker_arguments, find_docker, image_of
from server.options import Metrics, ServerOptions


def arguments(gpu: bool = False, repositories: tuple[str, ...] = ("/repo",), **options: Any) -> list[str]:
    paths = [Path(p) for p in repositories]
    chosen = ServerOptions(http_port=9000, grpc_port=9001, metrics_port=9002, **options)
    return docker_arguments(chosen, paths, name="conch-x", image=image_of("24.10"), gpu=gpu, shm_size_bytes=1 << 28)


def test_the_whole_command_line() -> None:
    got = arguments(control="poll")
    split = got.index("nvcr.io/nvidia/tritonserver:24.10-py3")
    assert got[:split] == [
        "run",
        "--rm",
        "--name=conch-x",
        "--shm-size=268435456",
        "--ulimit=memlock=-1",
        "--ulimit=stack=67108864",
        "--stop-timeout=15",
        "--publish=127.0.0.1:9000:8000",
        "--publish=127.0.0.1:9001:8001",
        "--publish=127.0.0.1:9002:8002",
        "--mount=type=bind,source=/repo,target=/models/0,readonly",
    ]
    assert got[split + 1] == "tritonserver"
    assert {"--model-repository=/models/0", "--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"} <= set(got)
    assert {"--http-address=0.0.0.0", "--model-control-mode=poll"} <= set(got)


def test_the_gpu_flag() -> None:
    assert "--gpus=all" in arguments(gpu=True)
    assert "--gpus=all" not in arguments(gpu=False)


def test_every_repository_is_mounted_read_only() -> None:
    got = arguments(repositories=("/a", "/b"))
    mounts = [a for a in got if a.startswith("--mount")]
    assert mounts == [
        "--mount=type=bind,source=/a,target=/models/0,readonly",
        "--mount=type=bind,source=/b,target=/models/1,readonly",
    ]
    assert [a for a in got if a.startswith("--model-repository")] == [
        "--model-repository=/models/0",
        "--model-repository=/models/1",
    ]


def test_no_metrics_no_port() -> None:
    assert not [a for a in arguments(metrics=Metrics(enabled=False)) if ":8002" in a]


def test_ipv6_addresses_are_bracketed() -> None:
    assert "--publish=[::1]:9000:8000" in arguments(host="::1")


def test_names_are_unique(tmp_path: Path) -> None:
    assert ContainerServer(tmp_path).name != ContainerServer(tmp_path).name


def fake_docker(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "there is no docker command"),
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "Cannot connect to the Docker daemon"),
        ("exit 5", "exit code 5"),
    ],
)
def test_without_docker_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    if script is not None:
        fake_docker(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ServerError) as raised:
        find_docker()
    assert message in str(raised.value)
    assert "--mode embedded" in str(raised.value.fix)


def test_docker_that_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path / "bin", "echo 28.0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_docker() == str(tmp_path / "bin" / "docker")
