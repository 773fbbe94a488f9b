"""`conch perf run` and `measure`, with the real perf_analyzer on a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch.errors import ConchError
from perf import points
from perf.analyzer.inputs import Inputs, from_file
from perf.analyzer.measure import LoadFailed, measure
from perf.analyzer.served import ask
from perf.perf_cli import perf
from perf.points import Load
from server import tiny_models
from tests.conftest import Triton, WriteModel

pytestmark = pytest.mark.integration

WINDOW_MS = 300
SHORT = ["--window-ms", str(WINDOW_MS), "--max-trials", "3"]
SLEEP_MS = 20
SLEEPS = """
    import time
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            time.sleep(0.02)
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v)]) for v in x]
"""
REMEMBERS = """
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            found = []
            for request in requests:
                x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
                with open("SEEN", "a") as file:
                    file.writelines(f"{value}\\n" for value in x.ravel())
                if (x < 0).any():
                    error = pb_utils.TritonError("a number below zero", pb_utils.TritonError.INVALID_ARG)
                    found.append(pb_utils.InferenceResponse([], error))
                else:
                    found.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
            return found
"""
BATCHED = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    dynamic_batching { }
"""


def numbers(server: Triton, model: str, values: list[float], folder: Path) -> Inputs:
    path = folder / "numbers.jsonl"
    path.write_text("".join(json.dumps({"x": [value]}) + "\n" for value in values))
    return from_file(ask(server.grpc_url, model).signature, path)


def load(model: str, **fields: Any) -> Load:
    return Load(model, **{"concurrency": 2, "window_ms": WINDOW_MS, "max_trials": 3, "percentile": 95, **fields})


@pytest.fixture(scope="module")
def sleeper(triton: Triton, write_python_model: WriteModel) -> str:
    write_python_model(triton.repository, "perf_sleeper", SLEEPS)
    triton.load("perf_sleeper")
    return "perf_sleeper"


def test_a_closed_loop_is_measured_right(triton: Triton, sleeper: str, tmp_path: Path) -> None:
    inputs, lines = numbers(triton, sleeper, [1.0, 2.0], tmp_path), []
    csv = tmp_path / "raw" / "report.csv"
    found = measure(load(sleeper), triton.grpc_url, inputs, on_line=lines.append, csv_path=csv)
    # One instance that takes 20 ms a request: the second of two waits for the first.
    assert found.server_ms["compute_infer"] >= SLEEP_MS
    assert found.server_ms["queue"] >= SLEEP_MS / 2
    assert found.latency_ms["p50"] >= 1.5 * SLEEP_MS
    assert found.requests_per_second <= 1000 / SLEEP_MS
    # Little's law: what is in flight is the rate times the time that each takes.
    assert found.requests_per_second * found.latency_ms["avg"] / 1000 == pytest.approx(2, rel=0.25)
    assert found.latency_ms["p50"] <= found.latency_ms["p90"] <= found.latency_ms["p99"]
    assert sum(found.server_ms.values()) <= found.latency_ms["avg"] * 1.1
    assert found.failures == 0
    assert found.average_batch == 1
    assert found.batch_sizes is not None
    assert set(found.batch_sizes) == {1}
    assert "Inferences/Second" in csv.read_text()
    assert any("Pass [3]" in line for line in lines)


def test_every_input_is_sent_over_http(triton: Triton, write_python_model: WriteModel, tmp_path: Path) -> None:
    source = REMEMBERS.replace("SEEN", str(tmp_path / "seen"))
    write_python_model(triton.repository, "perf_remembers", source, BATCHED)
    triton.load("perf_remembers")
    values = [1.5, 2.0, 0.25, 1024.0]
    inputs = numbers(triton, "perf_remembers", values, tmp_path)
    found = measure(load("perf_remembers", protocol="http", batch_size=4), triton.http_url, inputs)
    assert {float(line) for line in (tmp_path / "seen").read_text().split()} == set(values)
    assert found.inferences_per_second == pytest.approx(4 * found.requests_per_second)
    assert found.average_batch is not None
    assert found.average_batch >= 4


def test_a_failed_request_ends_the_load_with_its_reason(
    triton: Triton, write_python_model: WriteModel, tmp_path: Path
) -> None:
    write_python_model(triton.repository, "perf_refuses", REMEMBERS.replace("SEEN", "/dev/null"), BATCHED)
    triton.load("perf_refuses")
    with pytest.raises(LoadFailed) as caught:
        measure(load("perf_refuses"), triton.grpc_url, numbers(triton, "perf_refuses", [-1.0], tmp_path))
    assert caught.value.got == "a number below zero"


def test_a_model_slower_than_the_window_gets_longer_ones(
    triton: Triton, write_python_model: WriteModel, tmp_path: Path
) -> None:
    write_python_model(triton.repository, "perf_slow", SLEEPS.replace("0.02", "0.3"))
    triton.load("perf_slow")
    inputs = numbers(triton, "perf_slow", [1.0], tmp_path)
    found = measure(load("perf_slow", concurrency=1, window_ms=100), triton.grpc_url, inputs)
    assert found.latency_ms["p50"] >= 300
    assert found.load.window_ms == 100
    assert any("no request was done" in warning for warning in found.warnings)


def test_poisson_arrivals_keep_their_rate(triton: Triton, sleeper: str, tmp_path: Path) -> None:
    asked = load(sleeper, concurrency=None, request_rate_per_second=25.0, arrivals="poisson", window_ms=600)
    found = measure(asked, triton.grpc_url, numbers(triton, sleeper, [1.0], tmp_path))
    # 45 requests are expected; four times the root of that is too far.
    assert found.requests_per_second == pytest.approx(25, abs=15)


def test_a_rate_beyond_the_server_is_marked(triton: Triton, sleeper: str, tmp_path: Path) -> None:
    asked = load(sleeper, concurrency=None, request_rate_per_second=150.0, stability_percent=1000)
    found = measure(asked, triton.grpc_url, numbers(triton, sleeper, [1.0], tmp_path))
    assert not found.stable
    assert any("more than the server can do" in warning for warning in found.warnings)


def test_an_ensembles_steps_are_summed_and_shared_memory_goes(triton: Triton, tmp_path: Path) -> None:
    tiny_models.write_pipeline(triton.repository, "perf_pipeline", 1)
    triton.load("perf_pipeline")
    inputs = numbers(triton, "perf_pipeline", [1.0], tmp_path)
    asked = load("perf_pipeline", shared_memory="system", stability_percent=0.001)
    found = measure(asked, triton.grpc_url, inputs)
    assert found.server_ms["compute_infer"] > 0
    assert sum(found.server_ms.values()) <= found.latency_ms["avg"] * 1.1
    assert not found.stable
    assert any("unstable" in warning for warning in found.warnings)
    assert not [path for path in Path("/dev/shm").iterdir() if path.name.startswith(("x_0_", "trace"))]


def test_a_run_from_the_command_line_is_kept(triton: Triton, tmp_path: Path) -> None:
    tiny_models.write_single(triton.repository, "perf_single", 1)
    tiny_models.record(triton.repository, "perf_single", 1)
    triton.load("perf_single")
    arguments = ["run", "perf_single", "--url", triton.grpc_url, "--repository", str(triton.repository), *SHORT]
    result = CliRunner().invoke(
        perf, [*arguments, "--concurrency", "1,2", "--results", str(tmp_path), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    kept = points.load(document.pop("path"))
    assert points.from_document(document) == kept
    assert [point.load.concurrency for point in kept.points] == [1, 2]
    assert kept.version == "1"
    assert kept.machine.triton == "2.51.0"
    assert 'name: "perf_single"' in kept.config_text
    assert any("golden requests of perf_single" in note for note in kept.notes)
    assert len(list(tmp_path.glob("*/*.csv"))) == 2


def test_interrupted_it_keeps_what_was_measured_and_leaves_nothing_running(
    triton: Triton, sleeper: str, tmp_path: Path
) -> None:
    numbers(triton, sleeper, [1.0], tmp_path)
    command = [str(Path(sys.executable).parent / "conch"), "perf", "run", sleeper, "--url", triton.grpc_url, *SHORT]
    command += ["--concurrency", "1", "--repeat", "20", "--inputs", str(tmp_path / "numbers.jsonl")]
    process = subprocess.Popen(
        [*command, "--results", str(tmp_path / "results")], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    told = ""
    while "1/20" not in told:
        line = process.stderr.readline()
        assert line, told
        told += line
    deadline = time.monotonic() + 10
    while not (started := children(process.pid)):  # the second load's
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told += process.stderr.read()
    process.wait(20)
    assert process.returncode == 130, told
    assert "stopped after" in told
    deadline = time.monotonic() + 10  # what is just being started goes when it finds its parent gone
    while left := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    (path,) = (tmp_path / "results").glob("*.json")
    assert 1 <= len(points.load(path).points) < 20


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ConchError, match="no server") as caught:
        CliRunner().invoke(
            perf, ["run", "x", "--repository", str(tmp_path / "models")], catch_exceptions=False, env={"CONCH_URL": ""}
        )
    assert "conch serve" in str(caught.value)


def children(pid: int) -> list[int]:
    """All that a process has started, and they."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def test_the_children_of_a_process_are_found() -> None:
    process = subprocess.Popen(["/bin/sleep", "30"])
    try:
        assert process.pid in children(os.getpid())
    finally:
        process.kill()
        process.wait()
