"""A server announces itself beside its repository, and is found for as long as it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conch.repository import Repository
from server.running import announce, find_running

ROOT = Path(__file__).parents[3]

ANNOUNCE = """
import sys, time
from server.running import announce
with announce(sys.argv[1], "http://h:1", "grpc://h:2", "poll"):
    print("announced", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_it_is_found_until_it_ends(root: Path) -> None:
    assert find_running(root) is None
    with announce(root, "http://h:1", "grpc://h:2", "explicit"):
        found = find_running(root)
        assert found is not None
        assert (found.pid, found.http_url, found.grpc_url) == (os.getpid(), "http://h:1", "grpc://h:2")
        assert found.control == "explicit"
    assert find_running(root) is None


def test_one_that_was_killed_is_not_found_and_its_file_goes(root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"
        found = find_running(root)
        assert found is not None
        assert found.pid == process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert find_running(root) is None
    assert list(Repository(root).staging.rglob("*.json")) == []


def test_a_link_to_the_repository_finds_it_too(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    with announce(link, "http://h:1", "grpc://h:2", "poll"):
        assert find_running(root) == find_running(link) is not None


def test_who_clears_away_stages_leaves_it(root: Path) -> None:
    repository = Repository(root)
    with announce(root, "http://h:1", "grpc://h:2", "poll"), repository.stage():
        assert find_running(root) is not None


def test_a_file_of_a_newer_conch_is_passed_over(root: Path) -> None:
    with announce(root, "http://h:1", "grpc://h:2", "poll"):
        [path] = Repository(root).staging.rglob("*.json")
        path.write_text(json.dumps({"unknown": 1}))
        assert find_running(root) is None


def test_serving_does_not_depend_on_it(tmp_path: Path) -> None:
    (tmp_path / ".models.staging").write_text("in the way")
    with announce(tmp_path / "models", "http://h:1", "grpc://h:2", "poll"):
        assert find_running(tmp_path / "models") is None
