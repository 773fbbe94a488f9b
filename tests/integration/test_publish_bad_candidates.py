"""A bad candidate never serves a request, and the version that runs never stops: a client asks all the time."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from conch import ledger
from conch.errors import ConchError
from conch.manifest import Golden, Manifest, digest_files
from conch.repository import Repository
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from server.repo_view.aliasing import remove_alias
from server.repo_view.live_states import Server
from server.rollout.going_back import promote
from server.rollout.publish import PublishError, PublishOptions, run
from server.running import announce

pytestmark = pytest.mark.integration

DISK_BYTES = 4 << 20

ANSWER = """
    import os, time
    import triton_python_backend_utils as pb_utils
    import numpy as np


    class TritonPythonModel:
        def initialize(self, args):
            INITIALIZE

        def execute(self, requests):
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            ANSWER
"""
PASS = 'return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + 1)]) for v in x]'

ENSEMBLE = """
    name: "NAME"
    platform: "ensemble"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    ensemble_scheduling { step { model_name: "tiny" model_version: -1
        input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }
"""


@dataclass
class Live:
    """A server whose model `tiny` is asked without a pause."""

    root: Path
    server: EmbeddedServer
    small_disk: bool
    answers: list[float] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def options(self, **changes: Any) -> PublishOptions:
        return replace(PublishOptions(self.root), **changes)

    def wait_for_more_than(self, answers: int) -> None:
        """Until the client that asks all the time got an answer since."""
        deadline = time.monotonic() + 10
        while len(self.answers) <= answers:
            assert time.monotonic() < deadline, "the server stopped answering"
            time.sleep(0.01)

    def ask(self, model: str, x: float = 1.0) -> float:
        with Client(self.server.grpc_url) as client:
            return float(client.infer(model, x=[[x]])["y"][0, 0])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bool]]:
    """A folder on a file system of its own, small, where mounting one is permitted; and whether it is."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    small = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield folder, small
    if small:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def live(disk: tuple[Path, bool], write_python_model: Any) -> Iterator[Live]:
    root = disk[0] / "models"
    write_python_model(root, "tiny", added=1)
    write_python_model(root, "uses_tiny", "", ENSEMBLE)
    (root / "uses_tiny" / "1" / "model.py").unlink()
    options = ServerOptions(
        control="explicit", load_models=("*",), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
    )
    with EmbeddedServer(root, options) as server, announce(root, server.http_url, server.grpc_url, "explicit"):
        found = Live(root, server, disk[1])
        stop = threading.Event()
        asking = threading.Thread(target=_ask, args=(found, stop))
        asking.start()
        yield found
        stop.set()
        asking.join()
        server.kill()


def _ask(live: Live, stop: threading.Event) -> None:
    with Client(live.server.grpc_url, retries=0) as client:
        while not stop.is_set():
            try:
                answer = client.infer("tiny", x=[[1.0]])
                live.answers.append(float(answer["y"][0, 0]))
            except Exception as error:  # whatever it is, the test is to fail
                live.failures.append(error)
            stop.wait(0.002)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the repository, with its inode: nothing was written, and nothing replaced."""
    files = (p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): (p.stat().st_ino, p.read_bytes()) for p in files}


def stages(root: Path) -> list[Path]:
    """What a publish left beside the repository, apart from locks."""
    staging = Repository(root).staging
    return [p for p in staging.iterdir() if p.is_dir() and p.name not in ("servers", "locks")]


def golden(answer: float) -> tuple[Golden, ...]:
    x = {"datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    return (Golden({"x": x}, {"y": {**x, "data": [answer]}}),)


@dataclass(frozen=True)
class Bad:
    """How a candidate is bad, and what is said of it."""

    initialize: str = "pass"
    answer: str = PASS
    due: float | None = None
    spoil: Callable[[Path], None] = lambda folder: None
    options: Callable[[Live], PublishOptions] = Live.options
    step: str = ""
    why: str = ""


def _lacks(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def _changed(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"other")


def _large(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(DISK_BYTES))


BAD = {
    "does-not-load": Bad(initialize='raise RuntimeError("no weights here")', step="trial load", why="no weights here"),
    "does-not-parse": Bad(answer="return (", step="", why="SyntaxError|was never closed|syntax"),
    "answers-wrongly": Bad(
        answer=PASS.replace("v + 1", "v + 7"), due=2.0, step="golden requests", why="not what is due"
    ),
    "forgets-the-batch": Bad(answer=PASS.replace("v + 1", "v[:1] + 1"), step="golden requests", why="shape|size|rows"),
    "too-slow": Bad(
        answer=f"time.sleep(0.03); {PASS}",
        options=lambda live: live.options(p99_ms=20.0),
        step="latency",
        why=r"p99 \d\d.*; the version that serves: \d",
    ),
    "crashes-its-stub": Bad(answer="os._exit(1)", step="golden requests", why="did not answer"),
    "lacks-a-file": Bad(due=2.0, spoil=_lacks, step="check the files", why="missing: weights.bin"),
    "changed-file": Bad(due=2.0, spoil=_changed, step="check the files", why="changed: weights.bin"),
    "fills-the-disk": Bad(spoil=_large, step="stage", why="No space left"),
    "a-version-that-exists": Bad(
        options=lambda live: live.options(version=1), step="check the files", why="version 1 of tiny exists"
    ),
    "breaks-its-clients": Bad(
        answer=PASS.replace('"y"', '"z"'),
        step="compare the tensors: clients of tiny would break",
        why="output y is gone",
    ),
    "breaks-an-ensemble": Bad(
        answer=PASS.replace('"y"', '"z"'), options=lambda live: live.options(new_tensors=True), why="uses_tiny"
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_candidate_never_serves(kind: str, live: Live, tmp_path: Path, write_python_model: Any) -> None:
    bad = BAD[kind]
    if kind == "fills-the-disk" and not live.small_disk:
        pytest.skip("mounting a tmpfs is not permitted here")
    source = ANSWER.replace("INITIALIZE", bad.initialize).replace("ANSWER", bad.answer)
    folder = write_python_model(tmp_path / "in", "tiny", source)
    if kind in ("breaks-its-clients", "breaks-an-ensemble"):
        config = tmp_path / "in" / "tiny" / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "y"', 'name: "z"'))
    (folder / "weights.bin").write_bytes(b"weights")
    if bad.due is not None:
        config_text = (tmp_path / "in" / "tiny" / "config.pbtxt").read_text()
        manifest = Manifest("tiny", "now", {"kind": "test"}, digest_files(folder), config_text, golden=golden(bad.due))
        manifest.write(folder)
    bad.spoil(folder)
    before, asked = snapshot(live.root), len(live.answers)

    with pytest.raises(ConchError) as raised:
        run(tmp_path / "in" / "tiny", bad.options(live))

    assert f"tiny was not published: {bad.step}" in str(raised.value)
    raised.match(bad.why)
    assert snapshot(live.root) == before
    assert stages(live.root) == []
    assert live.failures == []
    live.wait_for_more_than(asked)
    assert set(live.answers) == {2.0}
    assert live.ask("uses_tiny") == 2.0


def test_what_answers_wrongly_on_the_live_server_alone_is_taken_back(
    live: Live, tmp_path: Path, write_python_model: Any
) -> None:
    """Right in the trial, and wrong where it serves; so it serves for a moment, and is not `tiny`."""
    write_python_model(tmp_path / "first", "moved", added=1)
    run(tmp_path / "first" / "moved", live.options(trial=False))
    source = ANSWER.replace("INITIALIZE", 'self.far = "trial" not in args["model_repository"]').replace(
        "ANSWER", PASS.replace("v + 1", "v + (50 if self.far else 1)")
    )
    write_python_model(tmp_path / "second", "moved", source)
    before = snapshot(live.root)
    with pytest.raises(PublishError, match="switch: output y is not what is due"):
        run(tmp_path / "second" / "moved", live.options())
    assert {k: v[1] for k, v in snapshot(live.root).items()} == {k: v[1] for k, v in before.items()}
    assert live.ask("moved") == 2.0


def test_a_good_candidate_is_asked_measured_told_and_serves(
    live: Live, tmp_path: Path, write_python_model: Any
) -> None:
    folder = write_python_model(tmp_path / "in", "good", added=1)
    first = run(folder.parent, live.options())
    assert (first.outcome, first.version, first.previous) == ("published", 1, None)
    shutil.rmtree(tmp_path / "in")
    folder = write_python_model(tmp_path / "in", "good", added=3)
    done = run(folder.parent, live.options(p99_ms=1000.0))
    assert (done.outcome, done.version, done.previous) == ("published", 2, 1)
    assert live.ask("good") == 4.0
    assert done.tried is not None
    assert [(row.name, row.largest) for row in done.tried.differences] == [("y", pytest.approx(2.0))]
    assert done.tried.measured is not None
    assert done.tried.measured.before is not None
    manifest = Repository(live.root).manifest("good", 2)
    assert manifest is not None
    assert manifest.golden[0].outputs["y"]["shape"] == [1, 1]

    before = snapshot(live.root)
    assert run(folder.parent, live.options()).outcome == "already there"
    assert snapshot(live.root) == before


def test_a_dry_run_changes_nothing(live: Live, tmp_path: Path, write_python_model: Any) -> None:
    write_python_model(tmp_path / "in", "tiny", added=5)
    before = snapshot(live.root)
    done = run(tmp_path / "in" / "tiny", live.options(dry_run=True))
    assert (done.outcome, done.version, done.previous) == ("dry run", 2, 1)
    assert done.tried is not None
    assert "uses_tiny" in done.tried.asked
    assert snapshot(live.root) == before
    assert set(live.answers) == {2.0}


def test_a_version_beside_what_serves_is_taken_away_or_promoted(
    live: Live, tmp_path: Path, write_python_model: Any
) -> None:
    write_python_model(tmp_path / "in", "tiny", added=5)
    done = run(tmp_path / "in" / "tiny", live.options(alias="canary", trial=False))
    assert (done.outcome, done.served_as) == ("beside", "tiny.v2")
    assert (live.ask("tiny.v2"), live.ask("tiny")) == (6.0, 2.0)
    remove_alias(live.root, "tiny@canary", Server())
    assert not (live.root / "tiny.v2").exists()
    assert live.failures == []
    assert set(live.answers) == {2.0}

    run(tmp_path / "in" / "tiny", live.options(alias="canary", as_name="new", trial=False))
    assert promote(live.root, "new@canary", None, Server()).version == 1
    assert live.ask("new") == 6.0
    assert ledger.read(live.root).aliases == {}

    config = (live.root / "new" / "config.pbtxt").read_text()
    write_python_model(tmp_path / "in", "tiny", added=8)
    changed = tmp_path / "in" / "tiny" / "config.pbtxt"
    changed.write_text(changed.read_text() + 'parameters { key: "k" value { string_value: "8" } }')
    run(tmp_path / "in" / "tiny", live.options(alias="canary", as_name="new", trial=False))
    assert promote(live.root, "new@canary", None, Server()).version == 2
    assert live.ask("new") == 9.0
    assert ledger.read(live.root).aliases == {}
    now = (live.root / "new" / "config.pbtxt").read_text()
    assert "version_policy" not in config + now
