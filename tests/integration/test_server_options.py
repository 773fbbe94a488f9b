"""Each group of options does what it says on a real server."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from server.embedded import EmbeddedServer
from server.options import (
    LocalCache,
    Metrics,
    OpenTelemetry,
    RateLimit,
    RateLimitResource,
    Restriction,
    ServerOptions,
)

pytestmark = pytest.mark.integration

FREE = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "exit_timeout_s": 1}

CACHED = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    response_cache { enable: true }
    instance_group { count: 1 kind: KIND_CPU rate_limiter { resources { name: "R1" count: 2 } priority: 1 } }
"""


def get(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(server: EmbeddedServer, model: str, x: float) -> tuple[int, str]:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}
    return get(f"{server.http_url}/v2/models/{model}/infer", body)


@dataclass(frozen=True)
class Collector:
    """Takes OTLP over HTTP, and keeps what came."""

    url: str
    received: list[bytes]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield Collector(f"http://127.0.0.1:{listening.server_port}/v1/traces", received)
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, write_python_model: Any, collector: Collector
) -> Iterator[EmbeddedServer]:
    """One server with every group of options at once."""
    repository = tmp_path_factory.mktemp("options")
    write_python_model(repository, "cached", config=CACHED)
    options = ServerOptions(
        **FREE,  # type: ignore[arg-type]
        cache=LocalCache(2 << 20),
        rate_limit=RateLimit((RateLimitResource("R1", 4),)),
        metrics=Metrics(interval_ms=100, summary_latencies=True, quantiles=((0.5, 0.05), (0.9, 0.01))),
        tracing=OpenTelemetry(
            collector.url,
            rate=1,
            resource={"service.name": "conch-test"},
            settings={"bsp_schedule_delay": "50"},
        ),
        http_threads=2,
        load_threads=1,
        log_verbose=1,
    )
    with EmbeddedServer(repository, options) as started:
        yield started


def metric(server: EmbeddedServer, name: str) -> float:
    _, text = get(server.metrics_url)
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    assert found, f"no {name} in the metrics"
    return float(found.group(1))


def test_the_cache_answers_the_same_question_once(server: EmbeddedServer) -> None:
    assert ask(server, "cached", 7)[0] == 200
    hits, runs = metric(server, "nv_cache_num_hits_per_model"), metric(server, "nv_inference_exec_count")
    assert json.loads(ask(server, "cached", 7)[1])["outputs"][0]["data"] == [8]
    assert metric(server, "nv_cache_num_hits_per_model") == hits + 1
    assert metric(server, "nv_inference_exec_count") == runs


def test_metrics_have_summaries_with_the_quantiles_asked_for(server: EmbeddedServer) -> None:
    ask(server, "cached", 8)
    _, text = get(server.metrics_url)
    quantiles = re.findall(r'nv_inference_queue_summary_us\{[^}]*quantile="([^"]+)"', text)
    assert quantiles == ["0.5", "0.9"]


def test_traces_arrive_at_the_collector(server: EmbeddedServer, collector: Collector) -> None:
    ask(server, "cached", 9)
    deadline = time.monotonic() + 15
    while not any(b"InferRequest" in trace for trace in collector.received):
        assert time.monotonic() < deadline, "no trace came"
        time.sleep(0.05)
    assert any(b"conch-test" in trace for trace in collector.received)


def test_rate_limit_and_threads_are_in_force(server: EmbeddedServer) -> None:
    log = server.log()
    assert re.search(r"rate_limit\s*\|\s*EXEC_COUNT", log)
    assert re.search(r"R1.*4", log)


def test_verbose_logging_shows_each_request(server: EmbeddedServer) -> None:
    before = server.log().count("HTTP request: 2 /v2/models/cached/infer")
    ask(server, "cached", 10)
    deadline = time.monotonic() + 10
    while server.log().count("HTTP request: 2 /v2/models/cached/infer") <= before:
        assert time.monotonic() < deadline, "the request was not logged"
        time.sleep(0.05)


def test_a_quiet_log_without_metrics(tmp_path: Path, start_server: Any) -> None:
    server = start_server(tmp_path, log_level="error", metrics=Metrics(enabled=False))
    assert "Started HTTPService" not in server.log()
    with pytest.raises(urllib.error.URLError):
        get(server.metrics_url)


def test_restricted_apis_ask_for_their_header(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path, "tiny")
    rule = Restriction(("model-repository", "health"), "admin-key", "secret")
    server = start_server(tmp_path, restrictions=(rule,))  # it is started in spite of its own restriction
    assert get(f"{server.http_url}/v2/health/ready")[0] == 403
    assert get(f"{server.http_url}/v2/health/ready", headers={"admin-key": "wrong"})[0] == 403
    assert get(f"{server.http_url}/v2/health/ready", headers={"admin-key": "secret"})[0] == 200
    assert ask(server, "tiny", 1)[0] == 200
    assert [m.name for m in server.index()] == ["tiny"]


@pytest.mark.parametrize(("strict", "code"), [(True, 400), (False, 200)])
def test_strict_readiness(tmp_path: Path, write_python_model: Any, start_server: Any, strict: bool, code: int) -> None:
    write_python_model(tmp_path, "broken", "import no_such_package_at_all\n")
    server = start_server(tmp_path, strict=False, strict_readiness=strict)
    assert get(f"{server.http_url}/v2/health/ready")[0] == code
