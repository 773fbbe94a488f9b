"""/openapi.json of a real gateway: valid, current, and good enough to make a client of, which then works."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.security import keys
from gateway.security.keys_file import update
from tests.fakes.parrot import add_parrot
from tests.fakes.rest_models import PEOPLE, PEOPLE_CONFIG, add_rest_models
from tests.gateway_fixtures import wait_ready

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def models(triton: Any) -> Any:
    add_rest_models(triton)
    add_parrot(triton, "openapi_parrot")
    return triton


def document(gateway: Any) -> dict[str, Any]:
    answer = httpx.get(f"{gateway.url}/openapi.json", timeout=30)
    assert answer.status_code == 200
    return dict(answer.json())


def wait_for_path(gateway: Any, path: str, *, there: bool, within_s: float = 15) -> dict[str, Any]:
    """The document, as soon as it has a path, or has it no more."""
    ends_s = time.monotonic() + within_s
    while ((found := document(gateway))["paths"].get(path) is not None) is not there:
        assert time.monotonic() < ends_s, f"{path} is {'not there' if there else 'still there'}"
        time.sleep(0.1)
    return found


def test_the_document_is_valid(gateway: Any, models: Any) -> None:
    from openapi_spec_validator import validate

    validate(wait_for_path(gateway, "/predict/rest_people", there=True))


def test_paths_come_and_go_with_the_models(gateway: Any, models: Any) -> None:
    path = "/predict/openapi_comes"
    models.add("openapi_comes", PEOPLE_CONFIG, {"model.py": PEOPLE})
    found = wait_for_path(gateway, path, there=True)
    assert found["components"]["schemas"]["openapi_comes_row"]["required"] == ["age", "children"]
    models.unload("openapi_comes")
    wait_for_path(gateway, path, there=False)


def test_a_key_sees_the_paths_of_its_models_alone(start_gateway: Any, models: Any, tmp_path: Path) -> None:
    secret, file = keys.new_secret("reports"), tmp_path / "keys.yaml"
    update(file, lambda before: (keys.Key("reports", keys.digest(secret), frozenset({"infer"}), ("rest_sum",)),))
    gateway = start_gateway(models, keys_file=file)
    wait_ready(gateway)
    assert httpx.get(f"{gateway.url}/openapi.json", timeout=30).status_code == 401
    found = httpx.get(f"{gateway.url}/openapi.json", headers={"Authorization": f"Bearer {secret}"}, timeout=30).json()
    assert [path for path in found["paths"] if path.startswith("/predict")] == [
        "/predict/rest_sum",
        "/predict/rest_sum/batch",
    ]
    assert "/generate" not in found["paths"]
    assert found["security"] == [{"key": []}]


@pytest.fixture(scope="module")
def made_client(gateway: Any, models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A client that openapi-python-client makes of the document, imported."""
    folder: Path = tmp_path_factory.mktemp("made")
    wait_for_path(gateway, "/predict/rest_file", there=True)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    command += ["--url", f"{gateway.url}/openapi.json", "--output-path", str(folder / "made_of_openapi")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # it formats with ruff
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout.upper(), done.stdout
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("made_of_openapi")
    finally:
        sys.path.remove(str(folder))


def part(made: Any, name: str) -> Any:
    return importlib.import_module(f"{made.__name__}.{name}")


def test_a_client_made_of_the_document_asks_about_rows(gateway: Any, made_client: Any) -> None:
    row, rows = (getattr(part(made_client, "models"), name) for name in ("RestPeopleRow", "RestPeopleRows"))
    with made_client.Client(base_url=gateway.url) as client:
        one = part(made_client, "api.predict.predict_rest_people").sync(
            client=client, body=row(age=70, children=2, name="Kim")
        )
        many = part(made_client, "api.predict.predict_rest_people_batch").sync(
            client=client, body=rows(rows=[row(age=age, children=0) for age in (60, 70)])
        )
    assert (one.label, one.name) == ("old", "Kim")
    assert [answer.label for answer in many.rows] == ["young", "old"]


def test_a_client_made_of_the_document_sends_a_file(gateway: Any, made_client: Any) -> None:
    file = part(made_client, "types").File(payload=io.BytesIO(b"GIF89a"), file_name="a.gif")
    body = part(made_client, "models").RestFileForm(image=file)
    with made_client.Client(base_url=gateway.url) as client:
        answer = part(made_client, "api.predict.predict_rest_file").sync(client=client, body=body)
    assert (answer.length, answer.begin) == (6, "GIF8")


def test_a_client_made_of_the_document_generates_text(gateway: Any, made_client: Any) -> None:
    made = part(made_client, "models")
    asked = made.Generate(prompt="polly wants", max_tokens=3, model=made.GenerateModel("openapi_parrot"))
    with made_client.Client(base_url=gateway.url) as client:
        answer = part(made_client, "api.generate.generate").sync(client=client, body=asked)
    assert (answer.text, answer.usage.output_tokens) == ("polly wants polly", 3)


def test_a_client_made_of_the_document_is_told_what_is_wrong(gateway: Any, made_client: Any) -> None:
    row = part(made_client, "models").RestPeopleRow
    with made_client.Client(base_url=gateway.url) as client:
        answer = part(made_client, "api.predict.predict_rest_people").sync(
            client=client, body=row(age="old", children=0)
        )
    assert answer.error.param == "age"
