"""A pipeline goes live whole or not at all, on a server that is named by its address; and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from conch.manifest import Golden, Manifest, digest_files
from conch.repository import Repository

pytestmark = pytest.mark.integration

CONCH = str(Path(sys.executable).parent / "conch")

ENSEMBLE = """
    name: "NAME"
    platform: "ensemble"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    ensemble_scheduling {
      step { model_name: "NAME_first" model_version: -1
        input_map { key: "x" value: "x" } output_map { key: "y" value: "inner" } }
      step { model_name: "NAME_second" model_version: -1
        input_map { key: "x" value: "inner" } output_map { key: "y" value: "y" } }
    }
"""


def write_pipeline(write: Any, root: Path, first: float, second: float, due: float | None = None) -> Path:
    """y = x + first + second, in two members; ``due`` is the second member's golden answer to 0."""
    write(root, "pipe_first", added=first)
    folder = write(root, "pipe_second", added=second)
    (write(root, "pipe", "", ENSEMBLE) / "model.py").unlink()
    if due is not None:
        zero = {"datatype": "FP32", "shape": [1, 1], "data": [0.0]}
        golden = (Golden({"x": zero}, {"y": {**zero, "data": [due]}}),)
        config = (root / "pipe_second" / "config.pbtxt").read_text()
        Manifest("pipe_second", "now", {"kind": "test"}, digest_files(folder), config, golden=golden).write(folder)
    return root


def repo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [CONCH, "repo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_pipeline_refused_published_and_rolled_back(
    tmp_path: Path, write_python_model: Any, start_server: Any
) -> None:
    root = tmp_path / "models"
    write_pipeline(write_python_model, root, 1, 10)
    server = start_server(root, control="explicit", load_models=("pipe",))
    where = ("--repository", "models", "--server", server.grpc_url)

    def answer() -> float:
        with Client(server.grpc_url) as client:
            return float(client.infer("pipe", x=[[0.0]])["y"][0, 0])

    write_pipeline(write_python_model, tmp_path / "wrong", 2, 20, due=21.0)
    refused = repo(tmp_path, "publish", "wrong", *where)
    assert refused.returncode == 1
    assert "pipe was not published: golden requests: output y is not what is due" in refused.stderr
    assert "pipe_second version 2" in refused.stderr
    assert Repository(root).versions("pipe_first") == [1]
    assert answer() == 11.0

    write_pipeline(write_python_model, tmp_path / "right", 2, 20, due=20.0)
    done = repo(tmp_path, "publish", "right/pipe", *where, "--keep-loaded", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["name"], document["version"], document["previous"]) == ("pipe", 2, 1)
    assert document["asked"] == {"pipe_second": 1, "pipe": 1}
    assert document["server"] == server.grpc_url
    assert answer() == 22.0
    assert sorted(p.name for p in root.iterdir()) == ["conch.json", "pipe", "pipe_first", "pipe_second"]

    back = repo(tmp_path, "rollback", "pipe", *where)
    assert back.returncode == 0, back.stderr
    assert "pipe version 1 serves; version 2 served before" in back.stderr
    assert answer() == 11.0
