"""An export into a repository that a server serves: it takes the version as one whole, or everything is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import Client
from conch import ledger
from conch.errors import ConchError
from conch.repository import Repository
from export.go_live import WentLive, go_live
from server.embedded import EmbeddedServer
from server.options import Restriction
from server.running import announce
from tests.conftest import StartServer
from tests.fakes.tiny_stages import stage_telling_pipeline, told_version

pytestmark = pytest.mark.integration

NAME = "told"


def export(repository: Repository, k: int, *, broken: bool = False) -> WentLive:
    with repository.stage() as stage:
        stage_telling_pipeline(stage, NAME, k, broken=broken)
        return go_live(stage)


def served(server: EmbeddedServer) -> str:
    with Client(server.http_url, retries=0) as client:
        return told_version(client.infer(NAME, {"x": [[1.0]]}))


@contextmanager
def serving(
    start_server: StartServer, repository: Repository, control: str, **options: object
) -> Iterator[EmbeddedServer]:
    """A server that says that it serves the repository, as `conch serve` does."""
    loaded = (NAME,) if control == "explicit" else ()
    server = start_server(repository.root, control=control, load_models=loaded, poll_interval_s=1, **options)
    with announce(repository.root, server.http_url, server.grpc_url, control):
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "models")
    assert export(repository, 1) == WentLive(1)
    return repository


@pytest.mark.parametrize("control", ["poll", "explicit"])
def test_a_running_server_serves_the_version_when_the_export_ends(
    start_server: StartServer, repository: Repository, control: str
) -> None:
    with serving(start_server, repository, control) as server:
        assert export(repository, 2) == WentLive(2, server.grpc_url)
        assert served(server) == "2"
        with pytest.raises(ConchError):
            export(repository, 3, broken=True)
        assert served(server) == "2"
    assert repository.versions(NAME) == [1, 2]
    assert [s.version for s in ledger.read(repository.root).history[NAME]] == [1, 2]


def test_a_server_that_takes_no_changes_is_left_alone(start_server: StartServer, repository: Repository) -> None:
    with serving(start_server, repository, "none") as server:
        assert export(repository, 2) == WentLive(2)
        assert served(server) == "1"


def test_a_server_that_takes_calls_from_none_is_told_of(start_server: StartServer, repository: Repository) -> None:
    closed = (Restriction(("model-repository",), "admin-key", "secret"),)
    with serving(start_server, repository, "explicit", restrictions=closed) as server:
        done = export(repository, 2)
        assert (done.version, done.server) == (2, "")
        assert server.grpc_url in done.note
        assert served(server) == "1"
