"""The curl lines of the documentation, run as they stand against a real gateway; only the address is another."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.control import Control
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.conftest import Triton
from tests.fakes.sample_stand_ins import add_stand_ins
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

ROOT = Path(__file__).parents[2]
DOCUMENTED = "http://127.0.0.1:9000"
PAGES = ("examples/gateway/rest.md", "README.md")
PATHS = ("/predict/", "/generate", "/stream", "/health", "/ready", "/openapi.json")


def lines() -> list[str]:
    """Every line with curl for one of our paths, of the blocks marked sh."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    ]
    found = [line for block in blocks for line in block.splitlines()]
    return [line for line in found if any(f"{DOCUMENTED}{path}" in line for path in PATHS)]


@pytest.fixture(scope="module")
def gateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway before a Triton that serves stand-ins for the samples, by their names."""
    repository = tmp_path_factory.mktemp("samples")
    options = ServerOptions(control="explicit", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(repository, options) as server:
        triton = Triton(server, repository, Control(server.grpc_url))
        add_stand_ins(triton, "spam", "churn", "digits")
        with running_gateway(triton) as running:
            wait_ready(running)
            yield running.url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lines are run: the files that they name are there."""
    where: Path = tmp_path_factory.mktemp("curl")
    (where / "digit.png").write_bytes(b"\x89PNG\r\n\x1a\n and the rest")
    return where


@pytest.mark.parametrize("line", lines())
def test_a_documented_line_is_answered(line: str, gateway_url: str, folder: Path) -> None:
    command = line.replace(DOCUMENTED, gateway_url).replace("curl -s", "curl --fail-with-body -s")
    done: Any = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith(("{", "data: {"))


def test_there_are_lines_for_every_path() -> None:
    assert [path for path in PATHS if not any(path in line for line in lines())] == []
