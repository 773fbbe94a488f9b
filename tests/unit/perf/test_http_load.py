"""The load generator, against small real HTTP servers of the standard library."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from conch.errors import ServerUnavailable
from perf.compare_servers import compare, texts
from perf.http_load import LoadResult, render_request, run_load


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
    assert result.requests > 0
    assert result.failures == result.requests


def test_the_warm_up_does_not_count(server: http.server.ThreadingHTTPServer) -> None:
    result = run_load(url(server), [b"a"], connections=1, duration_s=0.1, warmup_s=0.3)
    assert result.requests < len(server.seen)


def test_no_server_is_an_error() -> None:
    with pytest.raises(ServerUnavailable, match="nobody answers"):
        run_load("http://127.0.0.1:9/x", [b"a"], connections=1, duration_s=0.1)


def test_the_request_says_how_long_its_body_is() -> None:
    assert render_request("http://h:1/a/b", "é".encode()).endswith(b"Content-Length: 2\r\n\r\n\xc3\xa9")


def load(rps: float, p99_ms: float, failures: int = 0) -> LoadResult:
    return LoadResult(8, 100, failures, rps, 1.0, p99_ms)


def test_ratios_are_taken_within_a_round() -> None:
    pipeline = [load(200, 10), load(20, 100), load(200, 10)]
    fastapi = [load(100, 20), load(10, 200, failures=3), load(100, 20)]
    result = compare(pipeline, fastapi)
    assert (result.rps_ratio, result.p99_ratio, result.failures) == (2.0, 0.5, 3)


def test_texts_are_the_same_in_every_run_and_of_mixed_length() -> None:
    lengths = [len(text.split()) for text in texts()]
    assert texts() == texts()
    assert 5 <= min(lengths) < 10
    assert 30 < max(lengths) <= 40
