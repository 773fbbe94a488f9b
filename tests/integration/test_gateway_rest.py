"""Plain REST against a real gateway and a real Triton: rows, batches, files, versions, and every way to be wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.rest_models import PEOPLE, PEOPLE_CONFIG, add_rest_models
from tests.gateway_fixtures import wait_ready

pytestmark = pytest.mark.integration

KIM = {"age": 70, "children": 2, "name": "Kim"}


@pytest.fixture(scope="module")
def models(triton: Any) -> Any:
    add_rest_models(triton)
    return triton


@pytest.fixture(scope="module")
def client(gateway: Any, models: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as connected:
        yield connected


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, in the one shape that there is."""
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return dict(document["error"])


class TestPredict:
    def test_a_row_is_answered_with_plain_values(self, client: httpx.Client) -> None:
        answer = client.post("/predict/rest_people", json=KIM)
        assert answer.status_code == 200
        assert answer.json() == {"label": "old", "score": pytest.approx(0.7), "name": "Kim", "batch": 1}
        assert (answer.headers["X-Model-Name"], answer.headers["X-Model-Version"]) == ("rest_people", "1")
        assert answer.headers["X-Request-Id"]

    def test_an_optional_input_may_be_left_out(self, client: httpx.Client) -> None:
        assert client.post("/predict/rest_people", json={"age": 1, "children": 0}).json()["name"] == "nobody"

    def test_text_of_any_kind_comes_back(self, client: httpx.Client) -> None:
        name = "안녕 👋 \x00 end"
        assert client.post("/predict/rest_people", json=KIM | {"name": name}).json()["name"] == name

    def test_a_model_without_batches(self, client: httpx.Client) -> None:
        answer = client.post("/predict/rest_root", json={"x": [[1, 4], [9, -1]]})
        assert answer.json() == {"root": [[1.0, 2.0], [3.0, None]]}

    def test_a_content_type_is_not_needed(self, client: httpx.Client) -> None:
        assert client.post("/predict/rest_people", content=json.dumps(KIM)).status_code == 200

    def test_a_version_is_asked_by_header(self, client: httpx.Client, models: Any) -> None:
        config = PEOPLE_CONFIG + "version_policy { all {} }\n"
        models.add("rest_versions", config, {"model.py": PEOPLE})
        models.add("rest_versions", config, {"model.py": PEOPLE.replace("old", "OLD")}, version=2)
        labels = {
            version: client.post("/predict/rest_versions", json=KIM, headers=headers).json()["label"]
            for version, headers in (("", {}), ("1", {"X-Model-Version": "1"}), ("2", {"X-Model-Version": "2"}))
        }
        assert labels == {"": "OLD", "1": "old", "2": "OLD"}
        missing = client.post("/predict/rest_versions", json=KIM, headers={"X-Model-Version": "7"})
        assert missing.status_code == 404
        assert "7" in error_of(missing)["message"]


class TestBatch:
    def test_rows_are_cut_into_requests_and_stay_in_order(self, client: httpx.Client) -> None:
        rows = [{"age": age, "children": 0, "name": str(age)} for age in range(60, 71)]
        answer = client.post("/predict/rest_people/batch", json={"rows": rows})
        assert answer.status_code == 200
        found = answer.json()["rows"]
        assert [row["name"] for row in found] == [str(age) for age in range(60, 71)]
        assert [row["label"] for row in found] == ["young"] * 5 + ["old"] * 6
        assert [row["batch"] for row in found] == [4] * 8 + [3] * 3

    def test_rows_of_different_lengths_and_inputs(self, client: httpx.Client) -> None:
        rows = [{"ids": [1, 2]}, {"ids": [3]}, {"ids": [4, 5]}]
        answer = client.post("/predict/rest_sum/batch", json={"rows": rows})
        assert answer.json() == {"rows": [{"sum": 3}, {"sum": 3}, {"sum": 9}]}

    def test_a_model_without_batches_is_asked_row_by_row(self, client: httpx.Client) -> None:
        rows = [{"x": [[n, n], [n, n]]} for n in (1, 4)]
        answer = client.post("/predict/rest_root/batch", json={"rows": rows})
        assert answer.json() == {"rows": [{"root": [[1.0, 1.0]] * 2}, {"root": [[2.0, 2.0]] * 2}]}

    def test_a_batch_does_not_stand_in_its_own_way(self, start_gateway: Any, models: Any) -> None:
        gateway = start_gateway(models, queue_limits={"rest_people": 1})
        wait_ready(gateway)
        rows = [{"age": age, "children": 0} for age in range(30)]
        answer = httpx.post(f"{gateway.url}/predict/rest_people/batch", json={"rows": rows}, timeout=30)
        assert answer.status_code == 200
        assert len(answer.json()["rows"]) == 30

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "rows"),
            ([], None),
            ({"rows": []}, "rows"),
            ({"rows": KIM}, "rows"),
            ({"rows": [KIM], "more": 1}, "more"),
            ({"rows": [KIM] * 10_001}, "rows"),
            ({"rows": [KIM, 5]}, "rows[1]"),
            ({"rows": [KIM, KIM | {"age": "x"}]}, "rows[1].age"),
            ({"rows": [KIM] * 6 + [{"age": 1}]}, "rows[6].children"),
        ],
    )
    def test_a_wrong_row_is_named(self, client: httpx.Client, body: Any, param: str | None) -> None:
        answer = client.post("/predict/rest_people/batch", json=body)
        assert answer.status_code == 400
        assert error_of(answer)["param"] == param


class TestFiles:
    def test_an_image_as_form_data(self, client: httpx.Client) -> None:
        answer = client.post("/predict/rest_file", files={"image": ("a.png", b"\x89PNG\xff\x00rest", "image/png")})
        assert answer.status_code == 200
        assert answer.json() == {"length": 10, "begin": {"base64": base64.b64encode(b"\x89PNG").decode()}}

    def test_an_image_as_base64(self, client: httpx.Client) -> None:
        answer = client.post("/predict/rest_file", json={"image": base64.b64encode(b"GIF89a").decode()})
        assert answer.json() == {"length": 6, "begin": "GIF8"}

    def test_several_images_as_form_data(self, client: httpx.Client) -> None:
        files = [("image", (f"{n}.png", b"x" * n, "image/png")) for n in (1, 2, 3, 4, 5)]
        answer = client.post("/predict/rest_file/batch", files=files)
        assert [row["length"] for row in answer.json()["rows"]] == [1, 2, 3, 4, 5]

    def test_columns_as_form_data(self, client: httpx.Client) -> None:
        files = {name: (None, str(value)) for name, value in KIM.items()}
        assert client.post("/predict/rest_people", files=files).json()["label"] == "old"

    @pytest.mark.parametrize(
        ("files", "words"),
        [
            ([("image", ("a.png", b"no picture"))], "no picture, expected JPEG"),
            ([("picture", ("a.png", b"x"))], "no input picture"),
            ([("image", ("a.png", b"x")), ("image", ("b.png", b"x"))], "/predict/rest_file/batch"),
        ],
    )
    def test_a_wrong_form_is_refused(self, client: httpx.Client, files: Any, words: str) -> None:
        answer = client.post("/predict/rest_file", files=files)
        assert answer.status_code == 400
        assert words in error_of(answer)["message"]

    @pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
    def test_a_broken_form_is_refused(self, client: httpx.Client, content_type: str) -> None:
        answer = client.post("/predict/rest_file", content=b"--y\r\nbroken", headers={"Content-Type": content_type})
        assert answer.status_code == 400
        error_of(answer)


class TestWrongRequests:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "an empty body"),
            (b"{", "line 1, column 2"),
            (b'{"age": \xff}', "not UTF-8"),
            (b'{"age": NaN, "children": 0}', "NaN"),
            (b'{"age": 1e400, "children": 0}', "age is out of the range of FP32"),
            (b'{"age": 1e39, "children": 0}', "age is out of the range of FP32"),
            (b'{"age": ' + b"9" * 5000 + b', "children": 0}', "too many digits"),
            (b'{"age": ' + b"9" * 400 + b', "children": 0}', "age is out of the range of FP32"),
            (b'{"age": 1, "children": 3000000000}', "children has the wrong type"),
            (b'{"age": 1, "children": 1.5}', "a whole number from -2147483648 to 2147483647"),
            (b'{"age": "39", "children": 0}', "age has the wrong type; got text: '39'; expected a number"),
            (b'{"age": [1, 2], "children": 0}', "age has the wrong shape"),
            (b'{"age": null, "children": 0}', "fill missing values first"),
            (b'{"agee": 1, "children": 0}', "did you mean age?"),
            (b'{"age": 1}', "input children is missing"),
            (b'{"age": 1, "children": 0, "name": "\\ud83d"}', "half of a surrogate pair"),
            (b"[1]", "no JSON object"),
            (b"[" * 100_000, "nested too deep"),
        ],
    )
    def test_each_is_told_what_came_and_what_was_due(self, client: httpx.Client, content: bytes, words: str) -> None:
        answer = client.post("/predict/rest_people", content=content)
        assert answer.status_code == 400
        assert words in error_of(answer)["message"]

    def test_an_unknown_model_is_told_the_near_one(self, client: httpx.Client) -> None:
        answer = client.post("/predict/rest_peeple", json=KIM)
        assert answer.status_code == 404
        assert "rest_people" in error_of(answer)["message"]

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/predict/rest_people", 405), ("POST", "/predict", 404), ("POST", "/nothing", 404)],
    )
    def test_a_wrong_path_or_method_has_the_same_shape(
        self, client: httpx.Client, method: str, path: str, status: int
    ) -> None:
        answer = client.request(method, path)
        assert answer.status_code == status
        error_of(answer)

    @pytest.mark.parametrize("length", [100 * 2**20])
    def test_a_body_of_100_mb_is_refused_before_it_is_read(self, client: httpx.Client, length: int) -> None:
        headers = {"Content-Length": str(length)}
        answer = client.post("/predict/rest_people", content=b'{"age": ' + b" " * (length - 8), headers=headers)
        assert answer.status_code == 413
        error_of(answer)
