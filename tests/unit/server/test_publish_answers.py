"""How a candidate's answers are judged, and what a model is asked of which nothing is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.errors import RepositoryError
from conch.manifest import Golden, Parity, tensor_to_json
from conch.tensor_spec import ModelSignature, TensorSpec
from server.rollout import answers, latency
from server.rollout.answers import Limits, Request
from server.rollout.latency import Latencies, Measured

SIGNATURE = ModelSignature((TensorSpec("x", "FP32", (2,)),), (TensorSpec("y", "FP32", (3,)),), 8)
ONE = {"x": np.zeros((1, 2), np.float32)}


def y(*values: float) -> dict[str, Any]:
    return {"y": np.array([values], np.float32)}


def texts(*values: str | bytes) -> dict[str, Any]:
    return {"y": np.array(values, dtype=object)}


@pytest.mark.parametrize(
    ("got", "due", "parity", "limits"),
    [
        pytest.param(y(1, 2, 3), y(1, 2, 3), (), None, id="equal"),
        pytest.param(y(1, 2, 3.0002), y(1, 2, 3), (), None, id="rounding"),
        pytest.param(y(0, 0, 0.05), y(0, 0, 0), (Parity("y", 1, 0.01, 0.09),), None, id="as-the-export-measured"),
        pytest.param(y(1, 2, 3.4), y(1, 2, 3), (), Limits(0.5), id="as-the-user-says"),
        pytest.param(y(np.inf, np.nan, 0), y(np.inf, np.nan, 0), (), None, id="not-finite-and-due-so"),
        pytest.param(texts(b"spam"), texts("spam"), (), None, id="bytes-and-text"),
        pytest.param(texts(b'[{"a": 0.50001}]'), texts('[{"a": 0.5}]'), (), None, id="numbers-in-json"),
    ],
)
def test_what_is_right(got: Any, due: Any, parity: Any, limits: Limits | None) -> None:
    answers.check_values(got, due, parity, limits)


@pytest.mark.parametrize(
    ("got", "due", "parity", "why"),
    [
        pytest.param(y(1, 2, 3.1), y(1, 2, 3), (), "largest difference", id="a-value"),
        pytest.param(y(1, 2, np.nan), y(1, 2, 3), (), "inf", id="nan"),
        pytest.param({}, y(1, 2, 3), (), "no such output", id="missing"),
        pytest.param(y(1, 2), y(1, 2, 3), (), "form", id="shape"),
        pytest.param(texts("ham"), texts("spam"), (), "1 of 1 entries differ", id="text"),
        pytest.param(texts('[{"a": 0.6}]'), texts('[{"a": 0.5}]'), (), "entries differ", id="json"),
        pytest.param(
            y(0.05, -0.05, 0.05), y(0.05, 0.05, 0.05), (Parity("y", 1, 0.01, 0.2, cosine=0.96),), "cosine", id="turned"
        ),
    ],
)
def test_what_is_wrong(got: Any, due: Any, parity: Any, why: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        answers.check_values(got, due, parity)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("got", "why"),
    [
        pytest.param({}, "has no output y", id="missing"),
        pytest.param({"y": np.zeros((1, 4), np.float32)}, "another shape", id="shape"),
        pytest.param({"y": np.zeros((2, 3), np.float32)}, "1 rows", id="rows"),
        pytest.param({"y": np.full((1, 3), np.nan, np.float32)}, "not finite", id="nan"),
    ],
)
def test_a_form_that_is_wrong(got: Any, why: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        answers.check_form(SIGNATURE, ONE, got, None)
    assert why in str(raised.value)


def test_numbers_may_be_infinite_where_they_are_due_so() -> None:
    answers.check_form(SIGNATURE, ONE, y(1, 2, np.inf), y(1, 2, np.inf))


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "BF16"])
def test_a_made_up_request_fits_its_model_and_is_always_the_same(datatype: str) -> None:
    signature = ModelSignature((TensorSpec("x", datatype, (-1, 3)),), (), 4)
    [first], [second] = answers.made_up(signature), answers.made_up(signature)
    signature.check_inputs(dict(first.inputs))
    assert first.made_up
    assert np.array_equal(first.inputs["x"], second.inputs["x"])


def test_a_made_up_image_is_one() -> None:
    from io import BytesIO

    from PIL import Image

    [request] = answers.made_up(ModelSignature((TensorSpec("image", "BYTES", (1,)),), (), 4))
    assert Image.open(BytesIO(request.inputs["image"][0, 0])).size == (32, 32)


def test_two_requests_become_a_batch_where_there_are_batches() -> None:
    request = Request(ONE, y(1, 2, 3), "somewhere")
    batch = answers.together([request], SIGNATURE)
    assert batch is not None
    assert batch.inputs["x"].shape == (2, 2)
    assert answers.together([request], ModelSignature(SIGNATURE.inputs, SIGNATURE.outputs, 1)) is None


def test_what_is_recorded_is_read_again() -> None:
    request = Request({"text": np.array([["a"]], dtype=object)}, None, "")
    golden = answers.record(request, y(1, 2, 3))
    assert golden is not None
    again = answers.from_golden(golden, "")
    assert again.outputs is not None
    assert answers.agree(again.outputs, y(1, 2, 3))


@pytest.mark.parametrize("value", [np.zeros((1, 2000), np.float32), np.array([b"\xff\xfe"], dtype=object)])
def test_what_no_manifest_can_keep_is_not_recorded(value: Any) -> None:
    assert answers.record(Request({"x": value}, None, ""), y(1, 2, 3)) is None


def test_golden_requests_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text(json.dumps([{"inputs": {"x": tensor_to_json(ONE["x"])}}]))
    assert answers.read_golden(path) == (Golden({"x": tensor_to_json(ONE["x"])}, {}),)


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"outputs": {}}]', '[{"inputs": {"x": 1}}]', "[1]"])
def test_no_golden_requests(text: str, tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(RepositoryError, match="golden request"):
        answers.read_golden(path)


def test_a_p99_is_a_time_that_was_taken() -> None:
    assert latency.summarize([*range(1, 101)]) == Latencies(100, 51.0, 100.0)


@pytest.mark.parametrize(("p99_ms", "refused"), [(10.0, False), (10.01, True)])
def test_the_budget(p99_ms: float, refused: bool) -> None:
    measured = Measured(Latencies(500, 1.0, p99_ms), Latencies(500, 1.0, 2.5), 10.0)
    if not refused:
        latency.check(measured, "spam")
        return
    with pytest.raises(RepositoryError, match="slower than its budget") as raised:
        latency.check(measured, "spam")
    assert "the version that serves: 2.5 ms" in str(raised.value)


def test_both_are_asked_in_turns_and_a_lost_budget_ends_it() -> None:
    asked: list[str] = []
    measured = latency.measure(lambda i: asked.append("new"), lambda i: asked.append("old"), 0.0)
    assert measured.candidate.requests == latency.FEWEST
    assert asked.count("new") == asked.count("old") == latency.FEWEST + latency.WARM_UP
    assert asked[-4:] in (["new", "old", "old", "new"], ["old", "new", "new", "old"])


def test_with_room_in_the_budget_all_are_asked() -> None:
    assert latency.measure(lambda i: None, None, 1e6).candidate.requests == latency.REQUESTS
