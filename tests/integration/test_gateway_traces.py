"""A caller's trace goes on in Triton: what Triton sends to an OTLP collector belongs to it."""

from __future__ import annotations

import json
import secrets
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from server.embedded import EmbeddedServer
from server.options import OpenTelemetry, ServerOptions
from tests.conftest import WriteModel, write_model
from tests.fakes.parrot import add_parrot
from tests.gateway_fixtures import RunningGateway, running_gateway, wait_ready

pytestmark = pytest.mark.integration


class Collector:
    """Takes traces as OTLP over HTTP, in the JSON that Triton's exporter writes."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        keep = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in document.get("resourceSpans", []):
                    for scope in resource.get("scopeSpans", resource.get("instrumentationLibrarySpans", [])):
                        keep.extend(scope["spans"])
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, trace_id: str, within_s: float = 15.0) -> list[dict[str, Any]]:
        """The spans of a trace, as soon as there are any."""
        ends_s = time.monotonic() + within_s
        while time.monotonic() < ends_s:
            found = [span for span in self.spans if span["traceId"].lower() == trace_id]
            if found:
                return found
            time.sleep(0.05)
        return []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


class Folder:
    """A repository that is only written to."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository

    def add(self, name: str, config: str, files: Mapping[str, bytes | str | Path]) -> None:
        write_model(self.repository, name, config, files)


@pytest.fixture(scope="module")
def traced(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory, write_python_model: WriteModel
) -> Iterator[RunningGateway]:
    """A gateway before a Triton that traces only what carries a trace."""
    repository = tmp_path_factory.mktemp("traced")
    write_python_model(repository, "add")
    add_parrot(Folder(repository), "parrot")
    tracing = OpenTelemetry(collector.url, rate=0, settings={"bsp_schedule_delay": "100"})
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1, tracing=tracing)
    with EmbeddedServer(repository, options, start_timeout_s=120) as server, running_gateway(server) as running:
        wait_ready(running)
        yield running


def ask(gateway: RunningGateway, path: str, document: object, traceparent: str) -> bytes:
    headers = {"Content-Type": "application/json", "traceparent": traceparent}
    request = urllib.request.Request(gateway.url + path, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return bytes(reply.read())


CHAT = {"model": "parrot", "messages": [{"role": "user", "content": "polly"}], "stream": True}
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


@pytest.mark.parametrize(
    ("path", "document", "model"),
    [
        pytest.param("/predict/add", {"x": 1.0}, "add", id="predict"),
        pytest.param("/v1/chat/completions", CHAT, "parrot", id="a stream"),
        pytest.param("/v2/models/add/infer", V2, "add", id="passed through"),
    ],
)
def test_triton_joins_the_callers_trace(
    path: str, document: object, model: str, traced: RunningGateway, collector: Collector
) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    ask(traced, path, document, f"00-{trace_id}-{span_id}-01")
    spans = collector.of(trace_id)
    assert span_id in {span.get("parentSpanId", "").lower() for span in spans}
    assert model in json.dumps(spans)


def test_a_trace_that_the_caller_does_not_keep_is_not_started(traced: RunningGateway, collector: Collector) -> None:
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    ask(traced, "/predict/add", {"x": 1.0}, f"00-{unsampled}-{secrets.token_hex(8)}-00")
    ask(traced, "/predict/add", {"x": 1.0}, f"00-{sampled}-{secrets.token_hex(8)}-01")
    assert collector.of(sampled)  # sent later, and here: the other one would be here, too
    assert collector.of(unsampled, within_s=0.5) == []
