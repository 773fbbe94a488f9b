"""Streams, shared memory and threads against a real server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.errors import DeadlineExceeded, InferenceFailed, InvalidInput
from tests.fakes.any_client import MODES, AnyClient, url_of
from tests.fakes.client_models import add_client_models, cancelled_mark

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    add_client_models(triton)
    return triton


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Any, mode: str) -> Iterator[AnyClient]:
    with AnyClient(mode, url_of(server, mode)) as connected:
        yield connected


@pytest.mark.parametrize("mode", ["grpc", "grpc-async"])
class TestStreams:
    def test_responses_come_in_order_to_the_last(self, client: AnyClient) -> None:
        assert [int(r["i"][0]) for r in client.responses("stream", "client_count", n=5)] == [0, 1, 2, 3, 4]

    def test_no_response_is_an_empty_stream(self, client: AnyClient) -> None:
        assert client.responses("stream", "client_count", n=0) == []

    def test_an_error_in_the_middle_is_raised_once_not_tried_again(self, client: AnyClient) -> None:
        with pytest.raises(InferenceFailed, match="the model failed") as met:
            client.responses("stream", "client_count", n=20)
        assert met.value.got == "thirteen"

    def test_a_caller_that_stops_cancels_the_request(self, server: Any, client: AnyClient) -> None:
        cancelled_mark(server).unlink(missing_ok=True)
        assert len(client.responses("stream", "client_count", n=1000, first=2)) == 2
        deadline = time.monotonic() + 10
        while not cancelled_mark(server).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert int(cancelled_mark(server).read_text()) < 1000

    def test_the_deadline_is_that_of_the_whole_stream(self, client: AnyClient) -> None:
        with pytest.raises(DeadlineExceeded):
            client.responses("stream", "client_count", n=12, timeout_s=0.1)

    def test_a_stream_is_checked_before_it_is_sent(self, client: AnyClient) -> None:
        with pytest.raises(InvalidInput, match="no input named m"):
            client.responses("stream", "client_count", m=5)

    def test_a_model_that_answers_once_can_be_streamed_too(self, client: AnyClient) -> None:
        assert len(client.responses("stream", "client_echo", text="a")) == 1


def test_two_streams_run_at_a_time(server: Any) -> None:
    with AnyClient("grpc", server.grpc_url) as client:
        pairs = zip(client.stream("client_count", n=3), client.stream("client_count", n=3), strict=True)
        assert [(int(a["i"][0]), int(b["i"][0])) for a, b in pairs] == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("mode", ["http", "http-async"])
def test_a_stream_over_http_points_to_grpc(client: AnyClient) -> None:
    with pytest.raises(InvalidInput, match="needs gRPC") as met:
        client.responses("stream", "client_count", n=1)
    assert "grpc://" in str(met.value.fix)


def regions() -> list[str]:
    """The shared memory that this process's clients hold."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"conch-{os.getpid()}-")]


class TestSharedMemory:
    @pytest.fixture
    def sharing(self, server: Any, mode: str) -> Iterator[AnyClient]:
        with AnyClient(mode, url_of(server, mode), shared_memory=True) as connected:
            yield connected
        assert regions() == []

    def test_values_are_the_same_and_regions_are_used_again(self, sharing: AnyClient) -> None:
        names = set()
        for n in range(3):
            grid = np.full((2, 128, 256), n, np.float32)
            answer = sharing.infer("client_grid", grid=grid, note=["a", "b"])
            assert np.array_equal(answer["grid"], grid)
            assert answer["note"].tolist() == [[b"a"], [b"b"]]
            names.update(regions())
        assert len(names) == 1

    def test_a_message_follows_a_request_that_is_all_in_shared_memory(self, sharing: AnyClient) -> None:
        # tritonclient's HTTP client writes a request's lengths into the headers that it is given.
        grid = np.zeros((1, 128, 256), np.float32)
        sharing.infer("client_grid", grid=grid, note="small")
        answer = sharing.infer("client_grid", grid=grid, note="x" * 100_000)
        assert len(answer["note"].item()) == 100_000

    def test_an_answer_outlives_the_region(self, server: Any, mode: str) -> None:
        grid = np.ones((1, 128, 256), np.float32)
        with AnyClient(mode, url_of(server, mode), shared_memory=True) as client:
            first = client.infer("client_grid", grid=grid, note="a")
            client.infer("client_grid", grid=grid * 2, note="a")
        assert np.array_equal(first["grid"], grid)

    def test_the_region_is_given_back_after_an_error(self, sharing: AnyClient) -> None:
        grid = np.full((1, 128, 256), -1, np.float32)
        for _ in range(3):
            with pytest.raises(InferenceFailed, match="failed"):
                sharing.infer("client_grid", grid=grid, note="a")
        assert len(regions()) == 1

    def test_requests_at_once_do_not_share_a_region(self, sharing: AnyClient) -> None:
        grids = [np.full((1, 128, 256), n, np.float32) for n in range(12)]
        requests = [{"grid": grid, "note": "a"} for grid in grids]
        answers = sharing.responses("infer_many", "client_grid", requests, concurrency=4)
        assert [float(answer["grid"].max()) for answer in answers] == list(range(12))
        assert [float(answer["grid"].min()) for answer in answers] == list(range(12))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_threads_that_end_leave_no_descriptor(server: Any) -> None:
    with AnyClient("http", server.http_url) as client:

        def ask() -> None:
            client.infer("client_echo", text="a")

        def in_threads(count: int) -> int:
            for _ in range(count):
                thread = threading.Thread(target=ask)
                thread.start()
                thread.join(timeout=30)
            return descriptors()

        before = in_threads(2)
        assert in_threads(10) <= before + 1


@pytest.mark.parametrize("mode", ["http", "grpc"])  # an AsyncClient belongs to one event loop
def test_one_client_serves_many_threads(server: Any, mode: str) -> None:
    with AnyClient(mode, url_of(server, mode)) as client, ThreadPoolExecutor(8) as pool:
        names = [f"{n}" for n in range(64)]
        answers = list(pool.map(lambda name: client.infer("client_echo", text=name)["text"].item(), names))
    assert answers == [name.encode() for name in names]
