"""Fixtures that start the real Triton server, shared by all tests.

A server costs two seconds, so tests share one in explicit control and give their models names of their own. Those that
need other options, or that break the server, start a private one.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.control import Control
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.gateway_fixtures import gateway, start_gateway  # noqa: F401 - fixtures

WriteModel = Callable[..., Path]
StartServer = Callable[..., EmbeddedServer]

ADD_ONE = """
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + ADDED)]) for v in x]
"""

CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""


@dataclass(frozen=True)
class Triton:
    """A running server in explicit control, and the repository that it loads from."""

    server: EmbeddedServer
    repository: Path
    control: Control

    @property
    def http_url(self) -> str:
        return self.server.http_url

    @property
    def grpc_url(self) -> str:
        return self.server.grpc_url

    def load(self, name: str) -> None:
        """Load a model that lies in the repository. Raises: ModelLoadError."""
        self.control.load(name)

    def unload(self, name: str) -> None:
        """Unload a model, with what it depends on."""
        self.control.unload(name, dependents=True)

    def add(self, name: str, config: str, files: Mapping[str, bytes | str | Path], version: int = 1) -> None:
        """Write a model's config.pbtxt and version folder (files by name: contents, or a path to copy), and load it."""
        write_model(self.repository, name, config, files, version)
        self.load(name)


def write_model(
    repository: Path, name: str, config: str, files: Mapping[str, bytes | str | Path], version: int = 1
) -> Path:
    """Write a model by hand; returns its version folder."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        if isinstance(content, Path):
            shutil.copy(content, folder / file)
        else:
            (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    if "model.py" in files and "__pycache__" not in files:
        (folder / "__pycache__").touch()
    (repository / name / "config.pbtxt").write_text(textwrap.dedent(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_python_model() -> WriteModel:
    """A function (repository, name, source=None, config=None, version=1, added=1) -> version folder.

    Without a source it is a tiny model: y FP32 [1] = x FP32 [1] + ``added``, max_batch_size 8.
    """

    def write(
        repository: Path,
        name: str,
        source: str | None = None,
        config: str | None = None,
        version: int = 1,
        added: float = 1,
    ) -> Path:
        source = textwrap.dedent(source or ADD_ONE).replace("ADDED", str(added))
        config = textwrap.dedent(config or CONFIG).replace("NAME", name)
        return write_model(repository, name, config, {"model.py": source}, version)

    return write


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """The shared server, in explicit control with nothing loaded. One for each xdist worker."""
    repository = tmp_path_factory.mktemp("repository")
    options = ServerOptions(control="explicit", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(repository, options) as server:
        yield Triton(server, repository, Control(server.grpc_url))


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """A function (repository, strict=True, log_path=None, **ServerOptions) -> a started private EmbeddedServer.

    Free ports and a short exit timeout unless told otherwise; all are stopped after the test.
    """
    started: list[EmbeddedServer] = []

    def start(repository: Path, *, strict: bool = True, log_path: Path | None = None, **options: Any) -> EmbeddedServer:
        free = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "exit_timeout_s": 1}
        server = EmbeddedServer(
            repository, ServerOptions(**{**free, **options}), strict=strict, log_path=log_path, start_timeout_s=120
        )
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()  # a clean stop takes two seconds
        server.stop()
