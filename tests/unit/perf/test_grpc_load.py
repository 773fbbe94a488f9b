"""The gRPC load, against a real gRPC server of the gRPC library."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from perf.grpc_load import run_grpc_load


class Answering(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Echoes messages of any method; `bad` is refused."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        assert details.method == "/inference.GRPCInferenceService/ModelInfer"
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        with self.lock:
            self.seen.append(message)
        if message == b"bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused")
        return message


@pytest.fixture
def served() -> Iterator[tuple[int, Answering]]:
    handler = Answering()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, handler
    server.stop(0).wait()


def test_messages_arrive_whole_and_every_answer_counts(served: tuple[int, Answering]) -> None:
    port, handler = served
    # More than a frame, and together more than a window: the server must give leave to go on.
    messages = [b"a", b"b" * 20_000, b"c" * 50_000]
    result = run_grpc_load("127.0.0.1", port, messages, connections=3, duration_s=0.6, warmup_s=0)
    assert set(handler.seen) == set(messages)
    assert result.failures == 0
    assert 6 < result.requests <= len(handler.seen)


def test_refused_calls_are_failures(served: tuple[int, Answering]) -> None:
    result = run_grpc_load("127.0.0.1", served[0], [b"bad"], connections=2, duration_s=0.3, warmup_s=0)
    assert result.requests == 0
    assert result.failures > 0
