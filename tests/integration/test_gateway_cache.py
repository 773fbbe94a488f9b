"""The result cache before a real Triton: what is asked once, and what a new version does to it."""

from __future__ import annotations

import json
import textwrap
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import CacheSettings
from server.repo_view.live_states import Server
from server.rollout.publish import PublishOptions, run
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = pytest.mark.integration

SLOW = """
    import time

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            time.sleep(0.5)
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + ADDED)]) for v in x]
"""


@pytest.fixture(scope="module")
def caching(triton: Any) -> Any:
    with running_gateway(triton, cache=CacheSettings(ttl_s=600)) as gateway:
        wait_ready(gateway)
        yield gateway


def add(triton: Any, caching: Any, write: Any, name: str, **options: Any) -> None:
    """Load a model, and wait until the gateway has seen it: before that it cannot know when it changes."""
    write(triton.repository, name, **options)
    triton.load(name)
    end = time.monotonic() + 10
    while not caching.state.pool.is_ready(name):
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(gateway: Any, model: str, x: float = 1.0, timeout_s: float = 30.0) -> float:
    request = urllib.request.Request(
        f"{gateway.url}/predict/{model}", json.dumps({"x": x}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return float(json.loads(answer.read())["y"])


def executions(triton: Any, model: str) -> int:
    with urllib.request.urlopen(f"{triton.http_url}/v2/models/{model}/stats", timeout=10) as answer:
        return int(json.loads(answer.read())["model_stats"][-1]["execution_count"])


def test_a_question_is_asked_once_and_another_one_is_not_it(triton: Any, caching: Any, write_python_model: Any) -> None:
    add(triton, caching, write_python_model, "remembered")
    assert [ask(caching, "remembered", x) for x in (1.0, 1.0, 2.0, 1.0)] == [2.0, 2.0, 3.0, 2.0]
    assert executions(triton, "remembered") == 2


def test_equal_questions_at_a_time_go_to_the_model_once(triton: Any, caching: Any, write_python_model: Any) -> None:
    add(triton, caching, write_python_model, "slow_and_asked", source=SLOW)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: ask(caching, "slow_and_asked"), range(12)))
    assert answers == [2.0] * 12
    assert executions(triton, "slow_and_asked") == 1


def test_the_first_caller_may_hang_up(triton: Any, caching: Any, write_python_model: Any) -> None:
    add(triton, caching, write_python_model, "slow_and_left", source=SLOW)

    def leave() -> None:
        with pytest.raises(TimeoutError):
            ask(caching, "slow_and_left", timeout_s=0.2)

    first = threading.Thread(target=leave)
    first.start()
    time.sleep(0.1)
    assert ask(caching, "slow_and_left") == 2.0
    first.join()
    assert executions(triton, "slow_and_left") == 1


def test_a_new_version_answers_as_soon_as_it_serves(triton: Any, caching: Any, write_python_model: Any) -> None:
    add(triton, caching, write_python_model, "updated_often")
    assert [ask(caching, "updated_often"), ask(caching, "updated_often")] == [2.0, 2.0]
    add(triton, caching, write_python_model, "updated_often", version=2, added=5)
    end = time.monotonic() + 2.0  # the gateway looks twice a second
    while ask(caching, "updated_often") != 6.0:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [ask(caching, "updated_often") for _ in range(3)] == [6.0] * 3


def test_once_a_publish_has_returned_no_old_answer_is_given(
    triton: Any, start_gateway: Any, write_python_model: Any, tmp_path: Path
) -> None:
    gateway = start_gateway(triton, cache=CacheSettings(ttl_s=600), repository=triton.repository)
    wait_ready(gateway)
    add(triton, gateway, write_python_model, "published_often")
    for added in (2.0, 3.0, 4.0):
        before = ask(gateway, "published_often")
        assert ask(gateway, "published_often") == before
        write_python_model(tmp_path / str(added), "published_often", added=added)
        options = PublishOptions(triton.repository, server=Server(triton.grpc_url), trial=False)
        run(tmp_path / str(added) / "published_often", options)
        assert ask(gateway, "published_often") == 1.0 + added


ENSEMBLE = """
    name: "NAME"
    platform: "ensemble"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    ensemble_scheduling {
      step {
        model_name: "MEMBER"
        model_version: -1
        input_map { key: "x" value: "x" }
        output_map { key: "y" value: "y" }
      }
    }
"""


def test_a_new_version_of_a_member_counts(triton: Any, caching: Any, write_python_model: Any) -> None:
    add(triton, caching, write_python_model, "a_member")
    folder = triton.repository / "of_members"
    (folder / "1").mkdir(parents=True)
    config = textwrap.dedent(ENSEMBLE).replace("NAME", "of_members").replace("MEMBER", "a_member")
    (folder / "config.pbtxt").write_text(config)
    triton.load("of_members")
    assert ask(caching, "of_members") == 2.0
    time.sleep(1.0)
    assert [ask(caching, "of_members"), ask(caching, "of_members")] == [2.0, 2.0]
    add(triton, caching, write_python_model, "a_member", version=2, added=7)
    end = time.monotonic() + 2.0
    while ask(caching, "of_members") != 8.0:
        assert time.monotonic() < end
        time.sleep(0.02)
