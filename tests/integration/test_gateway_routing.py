"""Where the gateway sends a request: versions, aliases, canaries, fallbacks, full queues; and the V2 protocol."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from clients import Client
from conch import ledger
from conch.ledger import Alias, Ledger
from tests.conftest import Triton, WriteModel
from tests.fakes import slow_text
from tests.gateway_fixtures import RunningGateway, StartGateway, wait_for, wait_ready

pytestmark = pytest.mark.integration

BOTH_VERSIONS = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    version_policy { specific { versions: [ 1, 2 ] } }
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""

# Triton looks whether a request was taken back where it waits for the dynamic batcher.
ONE_BY_ONE = """
    name: "NAME"
    backend: "python"
    max_batch_size: 1
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    dynamic_batching { }
"""

SLEEPY = """
    import time
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
            time.sleep(float(x[0].ravel()[0]))
            with open(__file__ + ".ran", "a") as ran:
                ran.write("x")
            return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v)]) for v in x]
"""


@pytest.fixture(scope="module")
def models(triton: Triton, write_python_model: WriteModel) -> None:
    """gw_add (versions 1 and 2: y = x + 1, y = x + 2), gw_other (y = x + 10), gw_sleepy, gw_text."""
    for version in (1, 2):
        write_python_model(triton.repository, "gw_add", config=BOTH_VERSIONS, version=version, added=version)
    write_python_model(triton.repository, "gw_other", added=10)
    write_python_model(triton.repository, "gw_sleepy", SLEEPY, ONE_BY_ONE)
    write_python_model(triton.repository, "gw_text", slow_text.SOURCE, slow_text.CONFIG)
    for name in ("gw_add", "gw_other", "gw_sleepy", "gw_text"):
        triton.load(name)


@pytest.fixture(scope="module")
def front(gateway: RunningGateway, models: None) -> RunningGateway:
    """The shared gateway, once it has seen the models."""
    wait_for(lambda: gateway.state.pool.is_ready("gw_text"))
    return gateway


def body(x: float) -> dict[str, object]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}


def ask(gateway: RunningGateway, model: str, x: float = 0.0, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{gateway.url}/v2/models/{model}/infer", json=body(x), headers=named, timeout=30)


def added(response: httpx.Response) -> float:
    assert response.status_code == 200, response.text
    return float(response.json()["outputs"][0]["data"][0])


@pytest.mark.parametrize(("version", "expected"), [("", 2), ("1", 1), ("2", 2)])
def test_a_header_names_the_version(front: RunningGateway, version: str, expected: float) -> None:
    headers = {"X_Model_Version": version} if version else {}
    assert added(ask(front, "gw_add", **headers)) == expected


@pytest.mark.parametrize(
    ("model", "version", "status", "said"),
    [
        ("gw_ad", "", 404, "did you mean gw_add?"),
        ("gw_add", "7", 404, "no version 7"),
        ("gw_add", "new", 400, "no model version"),
        ("gw_add@stable", "", 404, "knows no aliases"),
    ],
)
def test_what_is_not_there_is_said_in_the_one_shape(
    front: RunningGateway, model: str, version: str, status: int, said: str
) -> None:
    response = ask(front, model, **({"X_Model_Version": version} if version else {}))
    error = response.json()["error"]
    assert (response.status_code, set(error)) == (status, {"message", "type", "param", "code"})
    assert said in error["message"]
    assert "127.0.0.1" not in response.text


@pytest.fixture
def with_aliases(start_gateway: StartGateway, triton: Triton, models: None, tmp_path: Path) -> RunningGateway:
    aliases = {"old": Alias("gw_add", 1), "half": Alias("gw_add", 1, weight=0.5)}
    ledger.update(tmp_path, lambda known: Ledger(aliases={"gw_add": aliases}))
    running = start_gateway(triton, repository=tmp_path)
    wait_for(lambda: running.state.pool.is_ready("gw_add"))
    return running


def test_an_alias_is_the_version_that_it_stands_for(with_aliases: RunningGateway) -> None:
    assert added(ask(with_aliases, "gw_add@old")) == 1


def test_a_canary_gets_its_share_and_a_key_meets_one_version(with_aliases: RunningGateway) -> None:
    answers = {added(ask(with_aliases, "gw_add")) for _ in range(40)}
    sticky = {added(ask(with_aliases, "gw_add", X_Sticky_Key="somebody")) for _ in range(10)}
    assert answers == {1.0, 2.0}
    assert len(sticky) == 1


def test_a_canary_that_is_gone_is_passed_over(
    start_gateway: StartGateway, triton: Triton, models: None, tmp_path: Path
) -> None:
    aliases = {"canary": Alias("gw_add.v9.next", 9, weight=1.0)}
    ledger.update(tmp_path, lambda known: Ledger(aliases={"gw_add": aliases}))
    running = start_gateway(triton, repository=tmp_path)
    wait_for(lambda: running.state.pool.is_ready("gw_add"))
    answers = [httpx.post(f"{running.url}/predict/gw_add", json={"x": 0.0}, timeout=30) for _ in range(3)]
    assert [(a.status_code, a.json()) for a in answers] == [(200, {"y": 2.0})] * 3
    assert httpx.post(f"{running.url}/predict/gw_add@canary", json={"x": 0.0}, timeout=30).status_code == 404


def test_a_model_that_is_not_ready_is_stood_in_for(start_gateway: StartGateway, triton: Triton, models: None) -> None:
    running = start_gateway(triton, fallbacks={"gw_gone": ("gw_absent", "gw_other")})
    wait_for(lambda: running.state.pool.is_ready("gw_other"))
    asked = {"url": f"{running.url}/predict/gw_gone", "json": {"x": 1.0}, "timeout": 30}
    stood_in, refused = httpx.post(**asked), httpx.post(**asked, headers={"X-Fallback": "never"})  # type: ignore[arg-type]
    assert (stood_in.status_code, stood_in.json()) == (200, {"y": 11.0})
    assert refused.status_code == 404


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
    start_gateway: StartGateway, triton: Triton, models: None
) -> None:
    running = start_gateway(triton, queue_limits={"gw_sleepy": 2})
    wait_for(lambda: running.state.pool.is_ready("gw_sleepy"))

    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=30) as client:
            url = f"{running.url}/v2/models/gw_sleepy/infer"
            return list(await asyncio.gather(*(client.post(url, json=body(0.3)) for _ in range(5))))

    answers = asyncio.run(at_once())
    refused = [a for a in answers if a.status_code == 429]
    assert sorted(a.status_code for a in answers) == [200, 200, 429, 429, 429]
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert refused[0].json()["error"]["code"] == "queue_full"
    assert added(ask(running, "gw_sleepy", 0.0)) == 0  # the places are free again


def test_a_deadline_ends_the_wait(front: RunningGateway) -> None:
    response = httpx.post(
        f"{front.url}/predict/gw_sleepy", json={"x": 5.0}, headers={"X-Request-Timeout": "0.2"}, timeout=4
    )
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_an_id_is_kept_or_made_and_nothing_forged(front: RunningGateway) -> None:
    assert ask(front, "gw_add", X_Request_Id="mine-7").headers["X-Request-Id"] == "mine-7"
    assert ask(front, "gw_add", X_Request_Id="a b").headers["X-Request-Id"] != "a b"


def test_our_own_client_speaks_v2_through_the_gateway_with_binary_tensors(front: RunningGateway) -> None:
    x = np.arange(8, dtype=np.float32).reshape(8, 1)
    with Client(front.url) as client:
        assert client.ready("gw_add")
        assert np.array_equal(client.infer("gw_add", x=x)["y"], x + 2)
        assert client.infer("gw_add", x=x, version=1).version == "1"


def test_large_bodies_stream_through_v2(front: RunningGateway, triton: Triton, write_python_model: WriteModel) -> None:
    dims = "data_type: TYPE_FP32 dims: [ -1 ]"
    wide = f'name: "NAME" backend: "python" input {{ name: "x" {dims} }} output {{ name: "y" {dims} }}'
    write_python_model(triton.repository, "gw_wide", config=wide)
    triton.load("gw_wide")
    wait_for(lambda: front.state.pool.is_ready("gw_wide"))
    x = np.arange(2_000_000, dtype=np.float32)
    with Client(front.url) as client:
        assert np.array_equal(client.infer("gw_wide", x=x)["y"], x + 1)


def test_v2_streams_pass_through_whole(front: RunningGateway) -> None:
    url = f"{front.url}/v2/models/gw_text/generate_stream"
    with httpx.stream("POST", url, json={"text_input": "4 0.2"}, timeout=30) as answer:
        chunks = [line for line in answer.iter_lines() if line]
    assert [json.loads(c.removeprefix("data: "))["text_output"] for c in chunks] == [f"word{n} " for n in range(1, 5)]


def test_v2_changes_nothing_without_an_admin_key(front: RunningGateway) -> None:
    response = httpx.post(f"{front.url}/v2/repository/models/gw_add/unload", timeout=30)
    assert response.status_code == 403
    assert added(ask(front, "gw_add")) == 2


def notes(triton: Triton) -> list[str]:
    path = triton.repository / "gw_text" / "1" / "notes.txt"
    return path.read_text().split() if path.exists() else []


STREAMS = [
    ("/v2/models/gw_text/generate_stream", {"text_input": "200 0.05"}),
    ("/v1/completions", {"model": "gw_text", "prompt": "200 0.05", "stream": True}),
    ("/v1/completions", {"model": "gw_text", "prompt": "200 0.05"}),
]


@pytest.mark.parametrize(("path", "asked"), STREAMS, ids=["v2", "stream", "whole"])
def test_a_client_that_leaves_frees_its_place(
    front: RunningGateway, triton: Triton, path: str, asked: dict[str, object]
) -> None:
    before = len(notes(triton))

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            task = asyncio.create_task(client.post(f"{front.url}{path}", json=asked))
            await asyncio.sleep(1.0)
            assert front.state.door.in_flight("gw_text") == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    wait_for(lambda: len(notes(triton)) > before, 5)
    assert notes(triton)[before:] == ["cancelled"]
    wait_for(lambda: front.state.door.in_flight("gw_text") == 0, 5)
    wait_ready(front)


def test_requests_that_wait_for_a_slow_model_are_taken_back(front: RunningGateway, triton: Triton) -> None:
    ran = triton.repository / "gw_sleepy" / "1" / "model.py.ran"
    url, sleep = f"{front.url}/predict/gw_sleepy", {"x": 0.5}
    first = [httpx.post(url, json=sleep, timeout=30).status_code for _ in range(2)]
    assert first == [200, 200]  # by now it is known to be slow
    before = len(ran.read_text())

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            tasks = [asyncio.create_task(client.post(url, json=sleep)) for _ in range(6)]
            await asyncio.to_thread(wait_for, lambda: front.state.door.in_flight("gw_sleepy") == 6)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(leave())
    wait_for(lambda: front.state.door.in_flight("gw_sleepy") == 0, 5)
    assert httpx.post(url, json=sleep, timeout=30).status_code == 200
    assert len(ran.read_text()) - before <= 4, "one or two had begun; the last is the one that waited for them"


def test_each_gets_its_own_answer_though_others_leave(front: RunningGateway) -> None:
    async def ask_all() -> list[tuple[int, httpx.Response]]:
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=24)) as client:

            async def one(number: int) -> tuple[int, httpx.Response]:
                asked = client.post(f"{front.url}/predict/gw_add", json={"x": float(number)})
                if number % 5 == 0:  # leaves in the middle
                    asked = asyncio.wait_for(asked, 0.01)
                return number, await asked

            found = await asyncio.gather(*(one(n) for n in range(300)), return_exceptions=True)
            return [pair for pair in found if isinstance(pair, tuple)]

    answered = asyncio.run(ask_all())
    assert len(answered) >= 240
    assert [(n, a.json()["y"]) for n, a in answered] == [(n, n + 2.0) for n, _ in answered]
