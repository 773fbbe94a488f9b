"""Bodies: over the limit, packed, and such as would end the server; and errors without stack traces."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.gateway_asks import ask, predict
from tests.gateway_fixtures import wait_ready

pytestmark = pytest.mark.integration

MB = 2**20
V2_BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


@pytest.fixture(scope="module")
def model(triton: Any, write_python_model: Any) -> str:
    write_python_model(triton.repository, "with_a_body")
    triton.load("with_a_body")
    return "with_a_body"


def send_until_refused(gateway: Any, head: str, chunk: bytes, most_bytes: int) -> tuple[int, bytes]:
    """Send a body until the gateway answers or hangs up; how many bytes went out, and what came back."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head.encode())
        sent = 0
        connection.settimeout(0.02)
        came = b""
        while sent < most_bytes and not came:
            try:
                sent += connection.send(chunk)
            except TimeoutError:
                pass
            except OSError:
                break
            try:
                came = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
        return sent, came


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused_unread(triton: Any, model: str, start_gateway: Any, chunked: bool) -> None:
    gateway = start_gateway(triton, body_size_mb=1.0)
    wait_ready(gateway)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MB}"
    head = f"POST /predict/{model} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    chunk = b"10000\r\n" + b"1" * 65536 + b"\r\n" if chunked else b"1" * 65536
    sent, came = send_until_refused(gateway, head, chunk, 100 * MB)
    assert sent < 20 * MB  # what lies in the kernel's buffers between the two
    assert came.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in came
    assert predict(gateway, model).status == 200


def test_a_body_over_the_limit_on_its_way_through_is_not_the_servers_fault(
    triton: Any, model: str, start_gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = start_gateway(triton, body_size_mb=1.0)
    wait_ready(gateway)
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, came = send_until_refused(gateway, head, b"10000\r\n" + b" " * 65536 + b"\r\n", 100 * MB)
    assert came.startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", gateway.port)) as leaves_in_the_middle:
        leaves_in_the_middle.sendall(head.encode() + b"10000\r\n" + b" " * 65536)
        time.sleep(0.2)
    time.sleep(0.2)
    assert "set aside" not in caplog.text
    assert "failed" not in caplog.text
    assert predict(gateway, model).status == 200


def deadly(model: str) -> list[bytes]:
    """Requests that end a Triton of 24.10, when they reach it as they are."""
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    deep = b'{"inputs":' + b"[" * 300_000
    packed = gzip.compress(deep)
    binary = b"\xff" + b'{"a":' * 150_000
    return [
        head.encode() + b"Content-Length: %d\r\n\r\n" % len(deep) + deep,
        head.encode()
        + b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(binary), len(binary))
        + binary,
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1_000_000 + b"0\r\n\r\n",
        head.encode() + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed,
    ]


@pytest.mark.parametrize("which", range(4), ids=["deep", "deep_and_binary", "tiny_chunks", "packed"])
def test_what_would_end_the_server_does_not_reach_it(
    start_server: Any, write_python_model: Any, start_gateway: Any, tmp_path: Path, which: int
) -> None:
    write_python_model(tmp_path / "models", "alive")
    server = start_server(tmp_path / "models")
    gateway = start_gateway(server)
    wait_ready(gateway)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(deadly("alive")[which])
        answer = connection.recv(65536)
    assert re.match(rb"HTTP/1.1 (400|500) ", answer), answer
    assert predict(gateway, "alive").status == 200


def test_a_large_request_still_passes(triton: Any, model: str, gateway: Any) -> None:
    """Brackets alone do no harm."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [8, 1], "data": [[1.0]] * 8, "parameters": {}}
    spaced = {"inputs": [tensor], "parameters": {f"p{i}": "[[{{" for i in range(1000)}}
    assert ask(gateway, f"/v2/models/{model}/infer", spaced).status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(json.dumps(V2_BODY).encode()), "gzip", 200),
        (zlib.compress(json.dumps(V2_BODY).encode()), "deflate", 200),
        (gzip.compress(b" " * 40 * MB), "gzip", 413),
        (b"none of it", "gzip", 400),
        (b"{}", "br", 415),
    ],
    # gzip writes the time into its header: ids of it would differ between the processes of a run.
    ids=["gzip", "deflate", "too large", "not packed", "unknown"],
)
def test_a_packed_body_is_unpacked_up_to_the_limit(
    model: str, gateway: Any, body: bytes, encoding: str, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("POST", f"/v2/models/{model}/infer", body, {"Content-Encoding": encoding})
    assert connection.getresponse().status == status
    connection.close()


def test_a_client_library_sees_the_413(triton: Any, model: str, start_gateway: Any) -> None:
    import httpx

    gateway = start_gateway(triton, body_size_mb=1.0)
    wait_ready(gateway)
    answer = httpx.post(f"{gateway.url}/predict/{model}", content=b"1" * (3 * MB), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


FAILS = """
    class TritonPythonModel:
        def execute(self, requests):
            secret_name = "inner"
            raise ValueError(f"cannot use {secret_name}")
"""


def test_no_stack_trace_leaves(triton: Any, gateway: Any, write_python_model: Any) -> None:
    write_python_model(triton.repository, "fails_inside", source=FAILS)
    triton.load("fails_inside")
    reply = predict(gateway, "fails_inside")
    assert reply.status == 500
    assert "cannot use inner" in reply.document["error"]["message"]
    assert not re.search(r"Traceback|At:|model\.py|/tmp", reply.body.decode()), reply.body
    passed = ask(gateway, "/v2/models/fails_inside/infer", V2_BODY)
    assert passed.status == 500
    assert not re.search(r"Traceback|At:|model\.py|/tmp", passed.body.decode()), passed.body
