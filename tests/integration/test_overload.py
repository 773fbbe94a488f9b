"""A model whose queue is full refuses at once and says so; what it accepted is answered; nothing is left behind."""

from __future__ import annotations

import statistics
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from clients import Client
from conch.errors import ClientError, DeadlineExceeded, QueueFull, ServerUnavailable

pytestmark = pytest.mark.integration

AT_ONCE = 24
LIMIT = 4
INSTANCES = 2
TAKES_S = 0.1

SLOW = f"""
    import time

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            time.sleep({TAKES_S} * len(requests))
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + 1)]) for v in x]
"""

TENSORS = """
    max_batch_size: 1
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""

LIMITED = f"""
    name: "NAME"
    backend: "python"
    {TENSORS}
    dynamic_batching {{ default_queue_policy {{ max_queue_size: {LIMIT} }} }}
    instance_group {{ count: {INSTANCES} kind: KIND_CPU }}
"""

ENSEMBLE = f"""
    name: "overload_ensemble"
    platform: "ensemble"
    {TENSORS}
    ensemble_scheduling {{
      step {{
        model_name: "overload_limited"
        model_version: -1
        input_map {{ key: "x" value: "x" }}
        output_map {{ key: "y" value: "y" }}
      }}
    }}
"""


@dataclass(frozen=True)
class Outcome:
    """What one of many requests at once came to, and when it ended after the start."""

    ended_s: float
    error: ClientError | None = None


@pytest.fixture(scope="module")
def urls(triton: Any, write_python_model: Any) -> Iterator[dict[str, str]]:
    write_python_model(triton.repository, "overload_limited", SLOW, LIMITED)
    folder = triton.repository / "overload_ensemble"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(textwrap.dedent(ENSEMBLE), encoding="utf-8")
    triton.load("overload_ensemble")
    yield {"http": triton.http_url, "grpc": triton.grpc_url}
    triton.unload("overload_ensemble")


def ask_at_once(url: str, model: str, count: int = AT_ONCE) -> list[Outcome]:
    """Ask ``count`` times at once, each by a thread and a client that never retries; in the order in which they end."""
    outcomes: list[Outcome] = []
    clients = [Client(url, retries=0) for _ in range(count)]
    go = threading.Barrier(count + 1)

    def ask(client: Client) -> None:
        go.wait(30)
        try:
            client.infer(model, {"x": [[1.0]]}, timeout_s=60)
            outcomes.append(Outcome(time.monotonic()))
        except ClientError as error:
            outcomes.append(Outcome(time.monotonic(), error))

    for client in clients:
        client.metadata(model)  # what a first request asks beside
    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    begun_s = time.monotonic()
    go.wait(30)
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    return [Outcome(o.ended_s - begun_s, o.error) for o in outcomes]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("model", ["overload_limited", "overload_ensemble"])
def test_a_full_queue_refuses_at_once_and_answers_what_it_took(urls: dict[str, str], model: str, protocol: str) -> None:
    outcomes = ask_at_once(urls[protocol], model)
    refused = [o for o in outcomes if o.error is not None]
    answered = [o for o in outcomes if o.error is None]
    # As many as may wait and run are taken at the least, and what ends meanwhile makes room for some more.
    assert LIMIT <= len(answered) < AT_ONCE / 2
    assert {type(o.error) for o in refused} == {QueueFull}
    assert all("queue is full" in str(o.error) and "max_queue_size" in str(o.error) for o in refused)
    # A refusal waits for no answer, not even for those that are taken.
    assert max(o.ended_s for o in refused) < max(o.ended_s for o in answered)
    assert statistics.median(o.ended_s for o in refused) < statistics.median(o.ended_s for o in answered)


def test_a_client_waits_for_room_as_long_as_its_deadline_and_no_longer(urls: dict[str, str]) -> None:
    crowd = threading.Thread(target=ask_at_once, args=(urls["grpc"], "overload_limited", LIMIT + INSTANCES + 2))
    with Client(urls["http"]) as client:
        client.metadata("overload_limited")
        crowd.start()
        answer = client.infer("overload_limited", {"x": [[1.0]]}, timeout_s=60)  # refused or not: the crowd goes away
        crowd.join()
    assert answer["y"].tolist() == [[2.0]]


def test_the_deadline_tells_that_the_queue_was_full(urls: dict[str, str]) -> None:
    stop = threading.Event()

    def keep_full() -> None:
        with Client(urls["grpc"], retries=0) as client:
            while not stop.is_set():
                try:
                    client.infer("overload_limited", {"x": [[1.0]]}, timeout_s=60)
                except ServerUnavailable:
                    time.sleep(0.005)

    crowd = [threading.Thread(target=keep_full) for _ in range(3 * LIMIT)]
    for thread in crowd:
        thread.start()
    failures: list[ClientError] = []
    try:
        with Client(urls["http"], retries=50) as client:
            client.metadata("overload_limited")
            for _ in range(8):
                try:
                    client.infer("overload_limited", {"x": [[1.0]]}, timeout_s=0.25)
                except ClientError as error:
                    failures.append(error)
    finally:
        stop.set()
        for thread in crowd:
            thread.join()
    assert {type(failure) for failure in failures} == {DeadlineExceeded}
    assert any("queue is full" in str(failure) for failure in failures)
