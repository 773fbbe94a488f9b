"""A pipeline whose members sleep known times, explained on real servers: the time is found where it was spent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch.errors import ModelNotFound, ServerError
from conch.repository import Repository
from perf.explain import explain as explaining
from perf.explain.cli import explain as command
from perf.explain.explain import Explanation, LoadFor, explain
from perf.explain.scratch import Traced, traced_server
from server import http_api

pytestmark = pytest.mark.integration

SLEEPS_MS = {"nap_preprocess": 3.0, "nap_model": 30.0, "nap_postprocess": 1.0}
TENSORS = ("x", "prepared", "scored", "y")
SLEEPER = """
    import time
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            time.sleep({sleep_s})
            return [self.answer(pb_utils.get_input_tensor_by_name(r, "{reads}").as_numpy()) for r in requests]

        def answer(self, x):
            if (x < -100).any():
                return pb_utils.InferenceResponse([], pb_utils.TritonError("that is too cold"))
            return pb_utils.InferenceResponse([pb_utils.Tensor("{writes}", x)])
"""
CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input {{ name: "{reads}" data_type: TYPE_FP32 dims: [ 1 ] }}
    output {{ name: "{writes}" data_type: TYPE_FP32 dims: [ 1 ] }}
    {more}
"""
STEP = """
  step {{
    model_name: "{name}" model_version: -1
    input_map {{ key: "{reads}" value: "{reads}" }} output_map {{ key: "{writes}" value: "{writes}" }}
  }}
"""
LOAD = LoadFor(concurrency=1, seconds=1.2, warmup_s=0.3)


def write_models(root: Path, write_python_model: Any) -> Path:
    steps = ""
    for index, (name, sleep_ms) in enumerate(SLEEPS_MS.items()):
        reads, writes = TENSORS[index], TENSORS[index + 1]
        source = SLEEPER.format(sleep_s=sleep_ms / 1000, reads=reads, writes=writes)
        write_python_model(root, name, source, CONFIG.format(reads=reads, writes=writes, more=""))
        steps += STEP.format(name=name, reads=reads, writes=writes)
    (root / "nap" / "1").mkdir(parents=True)
    (root / "nap" / "config.pbtxt").write_text(
        'name: "nap" platform: "ensemble" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } '
        f'output {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ensemble_scheduling {{ {steps} }}',
        encoding="utf-8",
    )
    cached = CONFIG.format(reads="x", writes="y", more="response_cache { enable: true }")
    write_python_model(root, "nap_cached", SLEEPER.format(sleep_s=0.001, reads="x", writes="y"), cached)
    return root


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, write_python_model: Any) -> Path:
    return write_models(tmp_path_factory.mktemp("explain") / "models", write_python_model)


@pytest.fixture(scope="module")
def traced(repository: Path) -> Iterator[Traced]:
    with traced_server(Repository(repository), "nap") as started:
        yield started


def infer_ms(found: Explanation) -> dict[str, float]:
    return {name: found.breakdown.ms("compute_infer", step=name) for name in SLEEPS_MS}


def check_times(found: Explanation) -> None:
    """Each member took what it sleeps, and the machine's own time beside it."""
    took = infer_ms(found)
    assert all(took[name] >= sleep_ms for name, sleep_ms in SLEEPS_MS.items()), took
    assert "bottleneck" in {f.rule for f in found.findings if f.step == "nap_model"}
    assert abs(found.breakdown.remainder_percent) < 10


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_traces_tell_where_the_time_went(traced: Traced, protocol: str) -> None:
    server = traced.server
    found = explain("nap", server.http_url, LOAD, load_url=server.grpc_url if protocol == "grpc" else "")
    assert found.protocol == protocol
    assert (found.breakdown.source, found.failures) == ("traces", 0)
    check_times(found)
    # The server counted, too, and by another way.
    assert found.server_ms["parts"] == pytest.approx(found.server_ms["statistics"], rel=0.1)
    kinds = [part.kind for part in found.breakdown.parts]
    assert (kinds[0], kinds[-1]) == ("to_server", "to_client")
    assert found.steps == tuple(SLEEPS_MS)
    assert sum(SLEEPS_MS.values()) < found.breakdown.measured_ms


def test_one_request_in_several_is_traced_and_stands_for_all(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "TRACES", 30)
    found = explain("nap", traced.server.http_url, LoadFor(4, 2.5, 0.3))
    assert 10 <= found.breakdown.sampled < found.requests / 2
    assert abs(found.breakdown.remainder_percent) < 25
    # Four in flight for one instance that sleeps 30 ms: they wait for it.
    queue_ms = found.breakdown.ms("queue", step="nap_model")
    assert queue_ms > SLEEPS_MS["nap_model"]
    assert {f.rule for f in found.findings if f.step == "nap_model"} >= {"queue-dominates", "does-not-batch"}


def test_the_trace_settings_are_as_they_were(traced: Traced) -> None:
    url = traced.server.http_url
    before = http_api.ask(url, "/v2/models/nap/trace/setting", {})
    explain("nap", url, LoadFor(2, 0.3, 0.2))
    assert http_api.ask(url, "/v2/models/nap/trace/setting", {}) == before
    assert before["trace_level"] == ["OFF"]


def test_failed_requests_are_found_with_their_reason(traced: Traced, tmp_path: Path) -> None:
    inputs = tmp_path / "some.jsonl"
    inputs.write_text('{"x": [1.0]}\n{"x": [-999.0]}\n', encoding="utf-8")
    found = explain("nap", traced.server.http_url, LOAD, inputs=inputs)
    assert found.failures > 0
    assert found.findings[0].rule == "failed-requests"
    assert "that is too cold" in found.findings[0].evidence
    inputs.write_text('{"x": [-999.0]}\n', encoding="utf-8")
    with pytest.raises(ServerError, match="no request was answered"):
        explain("nap", traced.server.http_url, LOAD, inputs=inputs)


@pytest.fixture(scope="module")
def untraced(triton: Any, write_python_model: Any) -> Any:
    """The tests' shared server, which was started without a trace file."""
    write_models(triton.repository, write_python_model)
    triton.load("nap")
    triton.load("nap_cached")
    return triton


def test_without_traces_the_statistics_tell(untraced: Any) -> None:
    found = explain("nap", untraced.http_url, LOAD)
    assert found.breakdown.source == "statistics"
    assert any("--trace-config" in note for note in found.notes)
    check_times(found)
    assert found.breakdown.ms("unseen") > 0
    # An ensemble's own counters hold its members' too: taken twice, the hops would be far below nothing.
    assert abs(found.breakdown.ms("hop")) < 0.2 * found.breakdown.measured_ms


def test_a_cache_that_the_server_does_not_have_is_found(untraced: Any) -> None:
    found = explain("nap_cached", untraced.http_url, LoadFor(1, 0.6, 0.2))
    assert "--cache-mb" in next(f.change for f in found.findings if f.rule == "cache-never-hits")


def test_a_server_of_our_own_has_the_cache_that_a_config_asks_for(repository: Path, tmp_path: Path) -> None:
    png, before = tmp_path / "w.png", sorted(p for p in repository.rglob("*"))
    words = ["nap_cached", "--repository", str(repository), "--seconds", "0.5", "--warmup", "0.2", "--json"]
    words += ["--results", str(tmp_path / "results")]
    done = CliRunner().invoke(command, [*words, "--png", str(png)])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (kept,) = (tmp_path / "results").iterdir()
    assert json.loads(kept.read_text(encoding="utf-8")) == document
    # Made up, so one and the same each time: the cache answers all but the first.
    assert document["evidence"][0]["cache_hits"] == document["requests"] > 0
    assert [part["kind"] for part in document["parts"] if part["step"] == "nap_cached"] == ["cache"]
    assert abs(document["remainder_percent"]) < 10
    assert "cache-never-hits" not in {f["rule"] for f in document["findings"]}
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(p for p in repository.rglob("*")) == before


def test_a_model_that_is_not_there_is_named(untraced: Any) -> None:
    with pytest.raises(ModelNotFound, match="no model nap_gone"):
        explain("nap_gone", untraced.http_url, LOAD)


def test_a_running_server_takes_no_trace_file(untraced: Any) -> None:
    """Why a server without one is explained from statistics (tritonserver 2.51); where this passes no more, set one."""
    with pytest.raises(ServerError) as refused:
        http_api.ask(untraced.http_url, "/v2/trace/setting", {}, body={"trace_file": "/tmp/traces.json"})
    assert "can not be updated" in str(refused.value)
