"""`kill -9` at each step of a switch, on a real server and under load.

The files at each step are tried more widely in tests/unit/conch/test_rollout_crashes.py; here the server that runs
keeps answering, the next command finishes the job, and a server started on what was left serves one whole version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clients import Client
from conch.repository import Repository, Stage
from conch.switching import checkpoint
from conch.switching.taker import NoServer
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from server.rollout.activate import activate
from server.rollout.live import ExplicitServer, connect
from server.rollout.recover import recover
from server.rollout.switch import already_there, publish
from server.under_load import Load
from tests.fakes.tiny_stages import stage_telling, stage_telling_pipeline, told_version

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]
STAGE: dict[str, Callable[[Stage, str, int], None]] = {"single": stage_telling, "pipeline": stage_telling_pipeline}

KILLED = """
import os, signal, sys
from conch.repository import Repository
from conch.switching import checkpoint
from server.rollout.activate import activate
from server.rollout.live import connect
from server.rollout.switch import publish
from tests.fakes.tiny_stages import stage_telling, stage_telling_pipeline

root, url, name, operation, k, place = sys.argv[1:]
def hook(reached):
    print(reached, flush=True)
    if reached == place:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.set_hook(hook)
repository, live = Repository(root), connect(url)
if operation == "publish":
    with repository.stage() as stage:
        (stage_telling_pipeline if name == "pipeline" else stage_telling)(stage, name, int(k))
        publish(stage, live, verify=lambda name, version: None)
else:
    activate(repository, name, int(k), live, lambda name, version: None, by="rollback")
print("the end")
"""


def places(name: str) -> list[str]:
    """Every step of a publish, found by doing it without a server."""
    reached: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder) / "models")
        for k in (1, 2):
            with repository.stage() as stage:
                STAGE[name](stage, name, k)
                checkpoint.set_hook(reached.append if k == 2 else None)
                publish(stage, NoServer(), verify=lambda name, version: None)
        checkpoint.set_hook(None)
    return reached


@dataclass
class Tried:
    """A server under load, and what was left of the repository at each step."""

    server: EmbeddedServer
    live: ExplicitServer
    repository: Repository
    snapshots: Path
    answers: dict[str, set[str]] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=lambda: {"single": 1, "pipeline": 1})

    def serves(self, name: str) -> str:
        """Which version answers."""
        with Client(self.server.grpc_url, retries=0) as client:
            return told_version(client.infer(name, {"x": [[1.0]]}))

    def publish(self, name: str, k: int) -> None:
        """The command, run once more."""
        recover(self.repository, self.live)
        with self.repository.stage() as stage:
            STAGE[name](stage, name, k)
            if already_there(stage) is None:
                publish(stage, self.live, verify=lambda name, version: None)

    def keep(self, name: str, allowed: set[str]) -> None:
        """A copy of the model as it lies there, under a name of its own, to start a server on."""
        copy = f"{name}x{len(self.answers)}"
        self.answers[copy] = allowed
        for folder in self.repository.root.glob(f"{name}*"):
            target = self.snapshots / folder.name.replace(name, copy)
            shutil.copytree(folder, target, symlinks=True)
            config = target / "config.pbtxt"
            config.write_text(config.read_text().replace(f'"{name}', f'"{copy}'))
            for link in (p for p in target.iterdir() if p.is_symlink()):
                pointed = os.readlink(link).replace(name, copy)
                link.unlink()
                link.symlink_to(pointed)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    root = tmp_path_factory.mktemp("kills") / "models"
    for name, stage_it in STAGE.items():
        with Repository(root).stage() as stage:
            stage_it(stage, name, 1)
            stage.commit()
    options = ServerOptions(
        control="explicit", load_models=tuple(STAGE), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
    )
    with EmbeddedServer(root, options) as server, connect(server.grpc_url) as live:
        assert isinstance(live, ExplicitServer)
        yield Tried(server, live, Repository(root), tmp_path_factory.mktemp("snapshots"))
        server.kill()


CASES = [(name, "publish", place) for name in STAGE for place in places(name)]
# Going back takes the same steps without files that are added: where it differs is enough.
CASES += [("single", "rollback", "config single"), ("single", "rollback", "committed")]
CASES += [("pipeline", "rollback", "switch"), ("pipeline", "rollback", "committed")]


@pytest.mark.parametrize(("name", "operation", "place"), CASES)
def test_a_killed_command_disturbs_nobody_and_is_finished_by_the_next(
    tried: Tried, name: str, operation: str, place: str
) -> None:
    if operation == "rollback" and tried.newest[name] == 1:  # the first case of this worker: nothing to go back from
        tried.publish(name, 2)
        tried.newest[name] = 2
    before = tried.newest[name]
    k = before + 1 if operation == "publish" else 1
    place = place.replace(".v2.", f".v{k}.")  # side models are named by the version
    command = [sys.executable, "-c", KILLED, str(tried.repository.root), tried.server.grpc_url]
    urls = [tried.server.http_url, tried.server.grpc_url]
    with Load(urls, name, {"x": [[1.0]]}, told_version, clients_per_url=1, pause_s=0.01) as load:
        # Told by its last words, not by its exit code: gevent, in clients over HTTP, collects those of all children.
        killed = subprocess.run(
            [*command, name, operation, str(k), place],
            cwd=CHECKOUT,
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert killed.stdout.splitlines()[-1:] == [place], killed.stderr
        assert tried.serves(name) in {str(before), str(k)}
        if operation == "publish":
            tried.keep(name, {str(before), str(k)})
            tried.publish(name, k)
            tried.newest[name] = k
            assert tried.serves(name) == str(k)
        else:
            activate(tried.repository, name, 1, tried.live, lambda name, version: None, by="rollback")
            assert tried.serves(name) == "1"
            activate(tried.repository, name, before, tried.live, lambda name, version: None, by="promote")
    report = load.report()
    assert (report.failed, report.mixed) == (0, 0), report.failures
    folders = {p.name for p in tried.repository.root.iterdir() if p.is_dir()}
    assert folders == {"single", "pipeline", "pipeline_model"}
    assert not (tried.repository.staging / "journal.json").exists()
    configs = "".join(p.read_text() for p in tried.repository.root.glob("*/config.pbtxt"))
    assert "specific" not in configs
    # No side model stays loaded either.
    assert set(tried.live.loaded_models()) == {"single", "pipeline", "pipeline_model"}


def test_a_server_started_on_what_was_left_serves_one_whole_version(tried: Tried) -> None:
    """All steps at once: each left a copy under a name of its own."""
    if not tried.answers:
        pytest.skip("run with the tests above: they leave the copies")
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(tried.snapshots, options) as server, Client(server.grpc_url) as client:
        found = {name: told_version(client.infer(name, {"x": [[1.0]]})) for name in tried.answers}
        server.kill()
    assert {name: k for name, k in found.items() if k not in tried.answers[name]} == {}
