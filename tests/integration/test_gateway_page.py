"""The page in a real Chromium: clicked through, every kind of form tried, an update seen to appear."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from gateway.security import keys, keys_file
from tests.conftest import Triton, WriteModel, write_model
from tests.fakes import parrot
from tests.gateway_fixtures import RunningGateway, running_gateway, wait_ready

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH: apt-get install chromium"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install conch[dev]")

# Nothing but the page's own requests: no updates, no reports, no QUIC.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
REFUSED = "status of 400"  # Chromium notes every such answer; one test is after one
SHOTS = os.environ.get("CONCH_SCREENSHOTS")  # a folder: pictures are left there, for a person to look at

BYTES_MODEL = """
    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            answers = []
            for request in requests:
                given = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
                lengths = [len(item) for item in given.ravel()]
                label = np.array([["long" if n > 10 else "short"] for n in lengths], dtype=object)
                scores = np.array([[0.75, 0.25] if n > 10 else [0.125, 0.875] for n in lengths], dtype=np.float32)
                tensors = [pb_utils.Tensor("label", label), pb_utils.Tensor("score", scores.max(1, keepdims=True))]
                answers.append(pb_utils.InferenceResponse([*tensors, pb_utils.Tensor("scores", scores)]))
            return answers
"""
BYTES_CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input { name: "INPUT" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "label" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "scores" data_type: TYPE_FP32 dims: [ 2 ] }
"""
TABLE_MODEL = """
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            answers = []
            for request in requests:
                age, tenure = (pb_utils.get_input_tensor_by_name(request, n).as_numpy() for n in ("age", "tenure"))
                answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("score", age + ADDED * tenure)]))
            return answers
"""
TABLE_CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 8
    input { name: "age" data_type: TYPE_FP32 dims: [ 1 ] }
    input { name: "tenure" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] }
"""
ENSEMBLE = """
    name: "page_text"
    platform: "ensemble"
    max_batch_size: 8
    input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "label" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "scores" data_type: TYPE_FP32 dims: [ 2 ] }
    ensemble_scheduling { step {
        model_name: "page_text_model"
        model_version: -1
        input_map { key: "text" value: "text" }
        output_map { key: "label" value: "label" }
        output_map { key: "score" value: "score" }
        output_map { key: "scores" value: "scores" }
    } }
"""


class Slow:
    """A repository to which the parrot is written with a pause of 100 ms a token."""

    def __init__(self, triton: Triton) -> None:
        self._triton = triton

    def add(self, name: str, config: str, files: Mapping[str, bytes | str | Path]) -> None:
        source = str(files["model.py"]).replace('"delay_ms", 0', '"delay_ms", 100')
        self._triton.add(name, config, {"model.py": source})


@pytest.fixture(scope="module")
def models(triton: Triton, write_python_model: WriteModel) -> Triton:
    """One model of each kind, all with names of this test's."""
    repository = triton.repository
    for name, tensor in (("page_text_model", "text"), ("page_image", "image")):
        source = BYTES_MODEL.replace("INPUT", tensor)
        write_python_model(repository, name, source, BYTES_CONFIG.replace("INPUT", tensor))
        triton.load(name)
    write_model(repository, "page_text", ENSEMBLE, {})
    triton.load("page_text")
    write_python_model(repository, "page_table", TABLE_MODEL, TABLE_CONFIG)
    triton.load("page_table")
    parrot.add_parrot(Slow(triton), "page_chat")
    return triton


@pytest.fixture(scope="module")
def served(models: Triton) -> Iterator[RunningGateway]:
    with running_gateway(models) as running:
        wait_ready(running)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, served: RunningGateway) -> Iterator[Any]:
    """The page, open; whatever it says on the console as an error, or asks of another host, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and REFUSED not in said.text else None
    )
    page.on("request", lambda sent: None if sent.url.startswith(("blob:", served.url)) else wrong.append(sent.url))
    page.goto(served.url)
    yield page
    context.close()
    assert wrong == []


def shoot(page: Any, name: str) -> None:
    """Leave a picture, where pictures are wanted."""
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS, f"{name}.png")), full_page=True)


def choose(page: Any, model: str) -> None:
    page.locator(f'nav a[data-model="{model}"]').click()
    page.get_by_role("heading", name=model, exact=True).wait_for()


def cell(page: Any, name: str, row: int) -> Any:
    return page.get_by_role("group", name=f"row {row}").get_by_label(name)


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


def test_a_text_model_and_its_pipeline(page: Any) -> None:
    choose(page, "page_text")
    graph = page.locator(".pipeline svg")
    expect(graph.locator(".node .name")).to_have_text(["request", "page_text_model", "answer"])
    expect(graph.locator(".tensors").first).to_contain_text("text STRING[1]")
    page.get_by_label("text").fill("win a prize now")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator('[data-output="label"]')).to_contain_text("long")
    expect(page.locator('[data-output="scores"] .bars')).to_contain_text("0.7500")
    expect(page.locator(".answer .hint").last).to_contain_text("page_text, version 1")
    expect(page.locator(".live .hint")).to_contain_text("1 answered")
    shoot(page, "text")
    graph.locator("a").click()
    page.get_by_role("heading", name="page_text_model", exact=True).wait_for()
    expect(page.locator(".head")).to_contain_text("a part of page_text")


def test_a_table_of_one_row_and_of_two(page: Any) -> None:
    choose(page, "page_table")
    cell(page, "age", 1).fill("40")
    cell(page, "tenure", 1).fill("2")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator('[data-output="score"] .value')).to_have_text("42")
    page.get_by_role("button", name="Add a row").click()
    cell(page, "tenure", 2).fill("3")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".results tbody td")).to_have_text(["42", "43"])
    shoot(page, "table")


def test_an_image_from_a_file(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(content, "PNG")
    picture = tmp_path / "teal.png"
    picture.write_bytes(content.getvalue())
    choose(page, "page_image")
    page.get_by_label("image").set_input_files(picture)
    expect(page.locator(".drop img")).to_be_visible()
    page.get_by_role("button", name="Ask").click()
    expect(page.locator('[data-output="label"]')).to_contain_text("long")
    shoot(page, "image")


def test_a_wrong_value_is_answered_in_words(page: Any) -> None:
    choose(page, "page_table")
    cell(page, "age", 1).fill("40")
    with page.expect_response(lambda reply: "/predict/" in reply.url) as refused:
        page.get_by_role("button", name="Ask").click()
    assert refused.value.status == 400
    failure = page.get_by_role("alert").filter(has_text="tenure")
    expect(failure).to_contain_text("input tenure is missing")
    expect(failure).to_contain_text("status 400, request ")
    shoot(page, "failure")


def test_a_chat_streams_and_stops(page: Any, models: Triton) -> None:
    choose(page, "page_chat")
    page.get_by_label("Message", exact=True).fill("one two three")
    page.get_by_label("Message", exact=True).press("Enter")
    said = page.locator(".said.assistant .text")
    expect(said).to_contain_text("user one")
    expect(page.locator(".said.assistant.streaming")).to_be_visible()  # the rest is still to come
    shoot(page, "chat-streaming")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".said.assistant .figures")).to_contain_text("stopped")
    with Client(models.grpc_url) as client:
        assert parrot.wait_for_state(client, "page_chat", running=0)["cancelled"] >= 1
    stopped_at = said.text_content()
    page.get_by_text("Settings").click()
    page.get_by_label("tokens at most").fill("4")
    page.get_by_label("Message", exact=True).fill("again")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".said.assistant .figures").last).to_contain_text("4 out")
    assert said.first.text_content() == stopped_at  # what was stopped stayed so
    shoot(page, "chat")


def test_a_new_version_appears(page: Any, models: Triton, write_python_model: WriteModel) -> None:
    choose(page, "page_table")
    expect(page.locator(".versions tbody tr")).to_have_count(1)
    cell(page, "age", 1).fill("40")
    write_python_model(models.repository, "page_table", TABLE_MODEL, TABLE_CONFIG, version=2, added=10)
    models.load("page_table")
    expect(page.locator(".versions tbody")).to_contain_text("2readyanswers by default")
    assert cell(page, "age", 1).input_value() == "40"  # what was typed is still there
    cell(page, "tenure", 1).fill("2")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator('[data-output="score"] .value')).to_have_text("60")
    shoot(page, "update")


def add_key(path: Path) -> str:
    """A key that may ask every model, in a keys file of its own."""
    secret = keys.new_secret("ada")
    keys_file.update(path, lambda known: (*known, keys.Key("ada", keys.digest(secret))))
    return secret


def test_asks_for_a_key_and_keeps_it_in_the_tab(browser: Any, models: Triton, tmp_path: Path) -> None:
    secret = add_key(tmp_path / "keys.json")
    with running_gateway(models, keys_file=tmp_path / "keys.json") as locked:
        wait_ready(locked)
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(locked.url)
        field = page.get_by_role("textbox", name="API key")
        expect(page.locator("#trouble")).to_contain_text("asks for an API key")
        shoot(page, "key")
        field.fill("conch-wrong-key")
        field.press("Enter")
        expect(page.locator("#trouble")).to_contain_text("401")
        field.fill(secret)
        field.press("Enter")
        choose(page, "page_text")
        page.reload()
        choose(page, "page_text")
        assert secret not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
        other = context.new_page()
        other.goto(locked.url)
        expect(other.locator("#trouble")).to_contain_text("asks for an API key")
        context.close()
