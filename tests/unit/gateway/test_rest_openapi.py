"""/openapi.json: one path a model, its schemas from the signature, valid OpenAPI, and current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.app import create_app
from gateway.catalogue import EnsembleStep, ServedModel
from gateway.rest.document import document, public
from gateway.rest.operations import component_name
from gateway.settings import Settings


def served(name: str, kind: Any, inputs: Any, outputs: Any, batch: int = 8, **more: Any) -> ServedModel:
    signature = ModelSignature(tuple(TensorSpec(*i) for i in inputs), tuple(TensorSpec(*o) for o in outputs), batch)
    return ServedModel(name, "2", ("1", "2"), kind, signature, **more)


LABEL = ("label", "BYTES", (1,))
SCORES = ("scores", "FP32", (3,))
SPAM = served("spam", "classify", [("text", "BYTES", (1,))], [LABEL, SCORES])
DIGITS = served(
    "digits",
    "image",
    [("image", "BYTES", (1,))],
    [LABEL],
    steps=(EnsembleStep("digits_postprocess", "-1", {}, {}),),
)
TENSORS = served(
    "odd name/안",
    "tensors",
    [("ids", "INT64", (-1,)), ("grid", "UINT8", (2, 3), True), ("note", "BYTES", (1,))],
    [("y", "FP32", (-1, 2)), ("blob", "BYTES", (1,))],
    batch=0,
)
CHAT = served("chat", "generate", [("text_input", "BYTES", (1,))], [("text_output", "BYTES", (-1,))], decoupled=True)
ALL = [SPAM, DIGITS, TENSORS, CHAT]


@pytest.fixture(scope="module")
def app() -> Any:
    return create_app(Settings())


def schema_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    """A component by itself, with what it refers to."""
    return {"$ref": f"#/components/schemas/{name}", "components": found["components"]}


def accepts(found: dict[str, Any], name: str, value: Any) -> bool:
    return jsonschema.Draft202012Validator(schema_of(found, name)).is_valid(value)


def test_the_document_is_valid_openapi(app: Any) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(json.loads(json.dumps(document(app, ALL, Settings(keys_file=Path("keys.json"))))))


def test_there_is_one_path_a_model_and_one_for_its_batches(app: Any) -> None:
    paths = document(app, ALL, Settings())["paths"]
    own = [path for path in paths if path.startswith("/predict")]
    odd = "/predict/odd%20name%2F%EC%95%88"
    names = ["/predict/spam", "/predict/digits", odd]
    assert own == [path for name in names for path in (name, f"{name}/batch")]
    assert {"/generate", "/stream", "/health", "/ready"} <= set(paths)


def test_paths_come_and_go_with_the_models(app: Any) -> None:
    with_spam, without = document(app, [SPAM], Settings()), document(app, [DIGITS], Settings())
    assert "/predict/spam" in with_spam["paths"]
    assert "/predict/spam" not in without["paths"]
    assert "/generate" not in without["paths"]
    assert "spam_row" not in without["components"]["schemas"]


def test_parts_of_pipelines_and_canaries_have_no_paths() -> None:
    names = ["digits_postprocess", "spam.v3", "other.v3", "spam_more"]
    others = [served(name, "tensors", [("x", "FP32", (1,))], [("y", "FP32", (1,))]) for name in names]
    assert [model.name for model in public([SPAM, DIGITS, *others])] == ["spam", "digits", "other.v3", "spam_more"]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("spam_row", {"text": "hello"}, True),
        ("spam_row", {"text": 5}, False),
        ("spam_row", {"txt": "hello"}, False),
        ("spam_row", {}, False),
        ("spam_row", {"text": "hello", "more": 1}, False),
        ("spam_rows", {"rows": [{"text": "a"}]}, True),
        ("spam_rows", {"rows": []}, False),
        ("spam_answer", {"label": "ham", "scores": [0.5, 0.25, 0.25]}, True),
        ("spam_answer", {"label": "ham", "scores": [0.5]}, False),
        ("odd.20name.2f.c548_row", {"ids": [1, 2], "note": "x"}, True),
        ("odd.20name.2f.c548_row", {"ids": [1], "note": {"base64": "AA=="}, "grid": [[1, 2, 3], [4, 5, 255]]}, True),
        ("odd.20name.2f.c548_row", {"ids": [], "note": "x"}, False),
        ("odd.20name.2f.c548_row", {"ids": [1], "note": "x", "grid": [[1, 2, 3], [4, 5, 256]]}, False),
        ("odd.20name.2f.c548_row", {"ids": [1], "note": "x", "grid": [[1, 2, 3]]}, False),
        ("odd.20name.2f.c548_answer", {"y": [[1.5, None]], "blob": {"base64": "AA=="}}, True),
        ("Generate", {"prompt": "a", "max_tokens": 5}, True),
        ("Generate", {"prompt": "a", "max_tokens": 0}, False),
        ("Generate", {"model": "spam", "prompt": "a"}, False),
    ],
)
def test_schemas_say_what_is_taken(app: Any, name: str, value: Any, right: bool) -> None:
    assert accepts(document(app, ALL, Settings()), name, value) is right


def test_labels_and_an_example_come_from_the_version_folders(app: Any, tmp_path: Path) -> None:
    golden = {"inputs": {"text": {"datatype": "BYTES", "shape": [1, 1], "data": ["win a prize"]}}, "outputs": {}}
    files = {
        "spam/2/labels.txt": "ham\nphishing\nspam\n",
        "spam/2/rules.yaml": "others: no\nthreshold: 0.5\n",
        "spam/2/manifest.json": json.dumps({"golden": [golden]}),
        "digits_postprocess/2/labels.txt": "0\n1\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    schemas = document(app, ALL, Settings(repository=tmp_path))["components"]["schemas"]
    assert schemas["spam_answer"]["properties"]["label"]["enum"] == ["ham", "phishing", "spam", "no"]
    assert schemas["spam_answer"]["properties"]["scores"]["description"] == "in this order: ham, phishing, spam"
    assert schemas["spam_row"]["examples"] == [{"text": "win a prize"}]
    assert schemas["digits_answer"]["properties"]["label"]["enum"] == ["0", "1"]
    assert "examples" not in schemas["digits_row"]


def test_files_may_be_sent_as_form_data(app: Any) -> None:
    found = document(app, ALL, Settings())
    paths, schemas = found["paths"], found["components"]["schemas"]
    content = paths["/predict/digits"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/digits_form"}
    assert schemas["digits_form"]["properties"]["image"]["format"] == "binary"
    assert schemas["digits_forms"]["properties"]["image"]["type"] == "array"
    assert "multipart/form-data" not in paths["/predict/spam"]["post"]["requestBody"]["content"]


def test_failures_have_one_shape_everywhere(app: Any) -> None:
    found = document(app, ALL, Settings())
    operations = [operation for item in found["paths"].values() for operation in item.values()]
    assert [o for o in operations if not {"4XX", "5XX"} <= set(o["responses"]) or "422" in o["responses"]] == []
    assert "HTTPValidationError" not in found["components"]["schemas"]


@pytest.mark.parametrize("name", ["a b", "a.20b", "a_b", "a-b", "a.b", "안"])
def test_names_of_components_are_their_own(name: str) -> None:
    others = {"a b", "a.20b", "a_b", "a-b", "a.b", "안"} - {name}
    assert component_name(name) not in {component_name(other) for other in others}
