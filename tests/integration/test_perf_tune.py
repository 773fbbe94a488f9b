"""conch perf tune on a real server: what is measured, what is written, what is left alone."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from conch.errors import ConchError
from conch.manifest import Golden, Manifest, digest_files, tensor_to_json
from conch.repository import Repository
from perf.tune.arena import scratch_arena
from perf.tune.search import SHORT, Reading
from perf.tune.settings import Batching
from perf.tune.tunable import look
from perf.tune.write_back import write_back
from server import tiny_models
from server.control import Control
from server.running import announce

pytestmark = pytest.mark.integration

# Each trip to the model takes its time, however many requests come along: batches and instances pay.
SLOW = """
    import time

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            time.sleep(0.02)
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + 1)]) for v in x]
"""
SLOW_CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    # by hand, and wrong
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    instance_group { count: 1 kind: KIND_CPU }
"""


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def golden(folder: Path, name: str) -> None:
    import numpy as np

    def one(value: float) -> dict[str, Any]:
        return tensor_to_json(np.array([[value]], dtype=np.float32))

    requests = (Golden({"x": one(1)}, {"y": one(2)}),)
    Manifest(name, "2026-01-01T00:00:00+00:00", {}, digest_files(folder), "", golden=requests).write(folder)


@pytest.fixture
def slow(tmp_path: Path, write_python_model: Callable[..., Path]) -> Path:
    """A repository with a model that batches and instances would make faster."""
    root = tmp_path / "repository"
    golden(write_python_model(root, "slow", SLOW, SLOW_CONFIG), "slow")
    return root


@pytest.fixture
def served(slow: Path, start_server: Callable[..., Any]) -> Iterator[tuple[Path, Any]]:
    """That repository, on a server that commands find."""
    server = start_server(slow, control="explicit", load_models=("slow",))
    with announce(slow, server.http_url, server.grpc_url, "explicit"):
        yield slow, server


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "conch", "perf", "tune", *arguments, "--repository", str(root)]


def test_bad_settings_become_better_and_the_running_server_takes_them(served: tuple[Path, Any], tmp_path: Path) -> None:
    root, server = served
    done = subprocess.run(
        command(root, "slow", "--minutes", "0.35", "--concurrency", "8", "--json"),
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["gain"] > 1.5
    assert report["measured_after"]["requests_per_second"] > report["measured_before"]["requests_per_second"]
    assert all(change["reason"] for change in report["changes"])
    assert report["took_s"] < 0.35 * 60 * 2
    assert report["written"]["models"] == ["slow"]
    text = (root / "slow" / "config.pbtxt").read_text()
    assert "# by hand, and wrong" in text
    assert "KIND_GPU" not in text
    tuned = look(Repository(root), "slow").start.of("slow")
    with Control(server.grpc_url) as control:
        live = control.config("slow")
    assert live.instance_group[0].count == tuned.instances
    assert live.HasField("dynamic_batching") == (tuned.batching is not None)
    saved = list((tmp_path / "perf/results/tune").glob("slow-*.json"))
    assert [json.loads(path.read_text()) for path in saved] == [report]


def test_interrupted_it_leaves_the_repository_as_it_was(slow: Path, tmp_path: Path) -> None:
    before = tree(slow)
    log = tmp_path / "log"
    with open(log, "w") as stderr:
        running = subprocess.Popen(
            command(slow, "slow", "--minutes", "3"), cwd=tmp_path, stderr=stderr, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("conch-perf-*")) and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        code = running.wait(30)
    assert code == 130, log.read_text()
    assert tree(slow) == before
    assert not list(tmp_path.glob("conch-*"))


def test_settings_go_live_together_or_not_at_all(tmp_path: Path, start_server: Callable[..., Any]) -> None:
    root = tmp_path / "repository"
    tiny_models.write_pipeline(root, "pipe", 3)
    repository, subject = Repository(root), look(Repository(root), "pipe")
    tuning = subject.start
    for model in ("pipe_preprocess", "pipe_model"):
        tuned = dataclasses.replace(subject.start.of(model), instances=2, batching=Batching(500))
        tuning = tuning.having(model, tuned)
    server = start_server(root, control="explicit", load_models=("pipe",))
    with announce(root, server.http_url, server.grpc_url, "explicit"):
        written = write_back(repository, subject, tuning)
        assert (written.models, written.server) == (("pipe_preprocess", "pipe_model"), server.grpc_url)
        with Control(server.grpc_url) as control:
            assert control.config("pipe_model").dynamic_batching.max_queue_delay_microseconds == 500
            assert control.config("pipe_preprocess").instance_group[0].count == 2
        # A limit that Triton refuses: an ensemble may not take more than its members.
        now, after = look(repository, "pipe"), tree(root)
        wrong = now.start.having("pipe_model", dataclasses.replace(now.start.of("pipe_model"), instances=3))
        wrong = wrong.having(
            "pipe_postprocess", dataclasses.replace(now.start.of("pipe_postprocess"), max_batch_size=2)
        )
        with pytest.raises(ConchError):
            write_back(repository, now, wrong)
        assert tree(root) == after
        with Client(server.grpc_url) as client:
            assert tiny_models.pipeline_version(client.infer("pipe", tiny_models.ASKED)) == "3"


def test_another_precision_is_another_version_which_is_promoted(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for version, precision in ((1, "int8"), (2, "fp32")):
        folder = tiny_models.write_single(root, "one", 5, version)
        config = (root / "one" / "config.pbtxt").read_text()
        Manifest(
            "one", "2026-01-01T00:00:00+00:00", {"kind": "tiny", "sha256": "same"}, digest_files(folder), config,
            settings={"precision": precision},
        ).write(folder)  # fmt: skip
    repository, subject = Repository(root), look(Repository(root), "one")
    assert dict(subject.precisions) == {1: "int8", 2: "fp32"}
    faster = dataclasses.replace(subject.start, version=1)
    faster = faster.having("one", dataclasses.replace(faster.of("one"), instances=2))
    with scratch_arena(repository, subject, 4, 60, lambda _http, _grpc: lambda *_: Reading(100, 1, 1)) as arena:
        assert not isinstance(arena.duel(subject.start, faster, SHORT), str)
    assert write_back(repository, subject, faster).models == ("one",)
    after = look(repository, "one")
    assert (after.version, after.start.of("one").instances) == (1, 2)


def test_what_changed_meanwhile_is_not_written_over(slow: Path) -> None:
    repository = Repository(slow)
    subject = look(repository, "slow")
    path = slow / "slow" / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 2"))
    with pytest.raises(ConchError, match="was changed while"):
        write_back(
            repository,
            subject,
            subject.start.having("slow", dataclasses.replace(subject.start.of("slow"), instances=4)),
        )


def test_both_sides_are_served_at_once_and_a_turn_loads_nothing(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    tiny_models.write_pipeline(root, "pipe", 1)
    subject = look(Repository(root), "pipe")
    other = subject.start.having(
        "pipe_model", dataclasses.replace(subject.start.of("pipe_model"), batching=Batching(preferred=(4,)))
    )
    impossible = subject.start.having(
        "pipe_model", dataclasses.replace(subject.start.of("pipe_model"), max_batch_size=2)
    )
    asked: list[tuple[str, str]] = []

    def measure_at(http_url: str, grpc_url: str) -> Callable[[str, int, int], Reading]:
        def measure(model: str, in_flight: int, window_ms: int) -> Reading:
            with Client(grpc_url) as client, Control(grpc_url) as control:
                assert tiny_models.pipeline_version(client.infer(model, tiny_models.ASKED)) == "1"
                member = control.config(model.replace("pipe", "pipe_model"))
            asked.append((model, str(list(member.dynamic_batching.preferred_batch_size))))
            return Reading(100, 1, 1)

        return measure

    before = tree(root)
    with scratch_arena(Repository(root), subject, 4, 60, measure_at) as arena:
        assert not isinstance(arena.duel(subject.start, other, 1), str)
        assert len(set(asked)) == 2  # each name always with its own settings
        order = [model for model, _ in asked]
        assert order == order[::-1]  # a b b a: what drifts, drifts for both
        refused = arena.duel(subject.start, impossible, SHORT)
        assert isinstance(refused, str)
        assert not isinstance(arena.duel(subject.start, other, SHORT), str)
        assert sum(arena.shares(subject.start).values()) == pytest.approx(1)
    assert tree(root) == before
