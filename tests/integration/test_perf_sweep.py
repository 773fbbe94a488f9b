"""Sweeps and comparisons of versions on real servers, with the real perf_analyzer: ratios, and no speeds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from perf.compare_runs import compare
from perf.report.cli import report
from perf.sweep import record
from perf.sweep.cli import sweep
from perf.sweep.plan import Cell

pytestmark = pytest.mark.integration

# An instance that sleeps takes no core, so two serve twice as much, however busy the machine is. Three rows fail.
SLEEPS = """
    import time

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            time.sleep(ADDED)
            if any(len(v) == 3 for v in x):
                return [pb_utils.InferenceResponse(error=pb_utils.TritonError("three rows")) for _ in x]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v)]) for v in x]
"""
# A test run in the background hands on that SIGINT is ignored.
CONCH = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from conch.cli import main; main()"
INPUTS = '[{"x": [1.0]}, {"x": [2.0]}]'


@pytest.fixture
def repository(tmp_path: Path, write_python_model) -> Path:
    """A model that sleeps 20 ms as version 1 and 60 ms as version 2."""
    root = tmp_path / "repository"
    write_python_model(root, "sleepy", SLEEPS, version=1, added=0.02)
    write_python_model(root, "sleepy", SLEEPS, version=2, added=0.06)
    (tmp_path / "inputs.json").write_text(INPUTS)
    return root


def options(repository: Path, **more: str) -> list[str]:
    base = {"repository": repository, "results": repository.parent / "results"}
    base |= {"inputs": repository.parent / "inputs.json", "window-ms": "300"}
    return [word for name, value in {**base, **more}.items() for word in (f"--{name}", str(value))]


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()


def test_a_sweep_changes_instances_on_its_own_server_and_goes_on_past_failures(repository: Path):
    before = digest(repository)
    axes = {"concurrency": "4", "batch-size": "1,3", "instances": "1,2", "max-trials": "3", "model-version": "1"}
    done = CliRunner().invoke(sweep, ["sleepy", "--json", *options(repository, **axes)])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    found = record.read(Path(document["folder"]))
    assert document["finished"]
    assert set(found.measured) == {Cell(1, 1, 4), Cell(2, 1, 4)}
    assert {failed.cell for failed in found.failed} == {Cell(1, 3, 4), Cell(2, 3, 4)}
    assert all("three rows" in failed.error for failed in found.failed)
    one, two = found.measured[Cell(1, 1, 4)], found.measured[Cell(2, 1, 4)]
    assert two.inferences_per_second > 1.5 * one.inferences_per_second
    assert [f"count: {n}" in run.result.config_text for n, run in enumerate(found.runs, 1)] == [True, True]
    assert digest(repository) == before
    page = CliRunner().invoke(report, [document["folder"]])
    assert page.exit_code == 0, page.output


def test_an_interrupted_sweep_keeps_its_points_and_goes_on(repository: Path):
    places = ["--repository", str(repository), "--results", str(repository.parent / "results")]
    command = [sys.executable, "-c", CONCH, "perf", "sweep", "sleepy"]
    axes = options(repository, concurrency="1,2,3", **{"model-version": "1"})
    axes += ["--max-trials", "3"]
    # A group of its own: the signal goes to all that it started, as Ctrl-C does, and not to these tests.
    process = subprocess.Popen([*command, *axes], stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("1/3"):
            time.sleep(0.5)
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(30) == 130, [*lines, rest]
    assert "--resume" in rest
    (folder,) = (repository.parent / "results/sleepy").iterdir()
    kept = record.read(folder)
    assert list(kept.measured) == [Cell(None, 1, 1)]
    done = CliRunner().invoke(sweep, ["sleepy", "--resume", *places])
    assert done.exit_code == 0, done.output
    finished = record.read(folder)
    assert not finished.left
    assert finished.measured[Cell(None, 1, 1)] == kept.measured[Cell(None, 1, 1)]


def test_a_slower_version_is_told_and_closes_the_gate(repository: Path):
    asked = options(repository, concurrency="2", rounds="2", config="live")
    arguments = ["sleepy:1", "sleepy:2", "--json", "--fail-if-slower", "50", *asked]
    done = CliRunner().invoke(compare, arguments)
    assert done.exit_code == 1, done.output
    document = json.loads(done.stdout)
    (level,) = document["levels"]
    assert {ratio["figure"]: ratio["verdict"] for ratio in level["ratios"]}["inferences_per_second"] == "slower"
    assert level["points"] == [2, 2]
    again = CliRunner().invoke(compare, [document["a"]["file"], document["a"]["file"], "--fail-if-slower", "0"])
    assert again.exit_code == 0, again.output


def test_a_running_server_is_measured_and_left_as_it_is(tmp_path: Path, triton, write_python_model):
    write_python_model(triton.repository, "perf_sweep_live")
    triton.load("perf_sweep_live")
    inputs = tmp_path / "inputs.json"
    inputs.write_text(INPUTS)
    before = triton.control.config("perf_sweep_live")
    places = ["--url", triton.http_url, "--results", str(tmp_path), "--inputs", str(inputs)]
    load = ["--concurrency", "2", "--window-ms", "200", "--max-trials", "3"]
    done = CliRunner().invoke(sweep, ["perf_sweep_live", *places, *load, "--json"])
    assert done.exit_code == 0, done.output
    found = record.read(Path(json.loads(done.stdout)["folder"]))
    assert found.measured[Cell(None, 1, 2)].load.protocol == "http"
    assert triton.control.config("perf_sweep_live") == before
    triton.unload("perf_sweep_live")


def test_the_users_server_is_never_changed(tmp_path: Path):
    done = CliRunner().invoke(sweep, ["sleepy", "--url", "grpc://127.0.0.1:1", "--instances", "2"])
    assert done.exit_code == 2
    assert "leave out --url" in done.output
