"""The load generator, against small real HTTP servers of the standard library."""

import http.server
import math
import threading
from collections.abc import Iterator

import pytest

from conch.errors import ServerUnavailable
from perf.http_load import render_request, run_load
from perf.load_loop import FAILURE_PAUSE_S


class Answering(http.server.BaseHTTPRequestHandler):
    """Echoes the body; a body of "bad" gets 400."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(body)
        self.send_response(400 if body == b"bad" else 200)
        self.send_header("Inference-Header-Content-Length", "1")  # as Triton's binary answers have
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    running.seen = []
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join(10)


def url(server: http.server.HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/x"


def test_every_body_is_sent_and_every_answer_counts(server: http.server.ThreadingHTTPServer) -> None:
    result = run_load(url(server), [b"a", b"bb", b"ccc"], connections=3, duration_s=0.3, warmup_s=0)
    assert set(server.seen) == {b"a", b"bb", b"ccc"}
    assert result.failures == 0
    assert 3 <= result.requests <= len(server.seen)
    assert result.requests_per_second == pytest.approx(result.requests / 0.3)
    assert 0 < result.p50_ms <= result.p99_ms


def test_refused_requests_are_failures(server: http.server.ThreadingHTTPServer) -> None:
    result = run_load(url(server), [b"bad"], connections=2, duration_s=0.2, warmup_s=0)
    assert result.requests == result.requests_per_second == 0
    assert result.failures > 0
    assert math.isnan(result.p50_ms)
    assert result.failure_p50_ms > 0


def test_who_was_refused_waits_and_others_go_on(server: http.server.ThreadingHTTPServer) -> None:
    result = run_load(url(server), [b"bad", b"a"], connections=2, duration_s=0.5, warmup_s=0)
    at_most = 2 * (0.5 / FAILURE_PAUSE_S + 1)
    assert 2 <= result.failures <= at_most
    assert server.seen.count(b"bad") <= at_most
    assert result.requests > 0
    assert result.p50_ms > 0


def test_the_warm_up_does_not_count(server: http.server.ThreadingHTTPServer) -> None:
    result = run_load(url(server), [b"a"], connections=1, duration_s=0.1, warmup_s=0.3)
    assert result.requests < len(server.seen)


def test_no_server_is_an_error() -> None:
    with pytest.raises(ServerUnavailable, match="nobody answers"):
        run_load("http://127.0.0.1:9/x", [b"a"], connections=1, duration_s=0.1)


def test_the_request_says_how_long_its_body_is() -> None:
    assert render_request("http://h:1/a/b", "é".encode()).endswith(b"Content-Length: 2\r\n\r\n\xc3\xa9")
