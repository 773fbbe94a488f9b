"""What `conch infer` reads, as requests; and how it shows answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.read_inputs import from_csv, from_images, from_json, from_texts
from clients.show import cell, items, table
from conch.errors import InvalidInput
from conch.tensor_spec import ModelSignature, TensorSpec

TEXT = TensorSpec("text", "BYTES", (1,))
PAIR = TensorSpec("text_pair", "BYTES", (1,), optional=True)
OUT = (TensorSpec("y", "FP32", (1,)),)
TEXTS = ModelSignature((TEXT, PAIR), OUT, 2)
CHURN = ModelSignature(
    (TensorSpec("age", "INT64", (1,)), TensorSpec("plan", "BYTES", (1,)), TensorSpec("new", "BOOL", (1,))), OUT, 2
)
FOREST = ModelSignature((TensorSpec("features", "FP32", (2,)),), OUT, 8)


def test_texts_are_cut_into_batches_that_the_model_takes() -> None:
    requests = from_texts(TEXTS, ["a", "b", "c"], ["x", "y", "z"])
    assert requests.inputs == [
        {"text": ["a", "b"], "text_pair": ["x", "y"]},
        {"text": ["c"], "text_pair": ["z"]},
    ]
    assert list(requests.labels) == ["a", "b", "c"]


def test_a_model_without_batches_gets_one_item_a_request() -> None:
    assert from_texts(ModelSignature((TEXT,), OUT, 0), ["a", "b"], []).inputs == [{"text": "a"}, {"text": "b"}]


def test_text_goes_to_the_only_string_input_whatever_its_name() -> None:
    message = ModelSignature((TensorSpec("message", "BYTES", (1,)),), OUT, 2)
    assert from_texts(message, ["a"], []).inputs == [{"message": ["a"]}]


def test_text_for_a_model_without_strings_is_refused() -> None:
    with pytest.raises(InvalidInput, match="takes no --text") as refused:
        from_texts(FOREST, ["a"], [])
    assert "features FP32 [batch, 2]" in str(refused.value)


def test_pairs_must_match() -> None:
    with pytest.raises(InvalidInput, match="do not match"):
        from_texts(TEXTS, ["a", "b"], ["x"])


def test_images_go_as_they_lie_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\x00\x00")
    signature = ModelSignature((TensorSpec("image", "BYTES", (1,)),), OUT, 2)
    requests = from_images(signature, [tmp_path / "a.png"])
    assert requests.inputs == [{"image": [b"\x89PNG\x00\x00"]}]
    assert list(requests.labels) == ["a.png"]


PROTOCOL = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}]}


@pytest.mark.parametrize(
    ("document", "inputs"),
    [
        ({"text": ["a"]}, [{"text": ["a"]}]),
        ([{"text": "a"}, {"text": "b"}], [{"text": "a"}, {"text": "b"}]),
        (PROTOCOL, [{"x": [[1.0], [2.0]]}]),
        ({"inputs": "an input of that name"}, [{"inputs": "an input of that name"}]),
    ],
)
def test_json_holds_a_request_a_list_or_tritons_own_form(tmp_path: Path, document: Any, inputs: Any) -> None:
    (tmp_path / "in.json").write_text(json.dumps(document))
    read = from_json(str(tmp_path / "in.json")).inputs
    assert [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in r.items()} for r in read] == inputs


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "no JSON"),
        ("[]", "no request"),
        ("3", "no request"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1]}]}', "does not fit its shape"),
    ],
)
def test_json_that_is_no_request_is_refused(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(InvalidInput, match=part) as refused:
        from_json(str(tmp_path / "in.json"))
    assert str(tmp_path / "in.json") in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        from_json(str(tmp_path / "none.json"))


def write_csv(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_csv_columns_are_inputs_and_others_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = write_csv(tmp_path, '\ufeffplan,age,new,churned\n"a, b",30,true,1\nc,40,0,0\n\n"d\ne",50,1,0\n')
    requests = from_csv(CHURN, path)
    assert requests.inputs == [
        {"plan": ["a, b", "c"], "age": [30, 40], "new": [True, False]},
        {"plan": ["d\ne"], "age": [50], "new": [True]},
    ]
    assert "churned" in requests.notes[0]
    assert list(requests.labels) == ["row 1", "row 2", "row 3"]


def test_csv_columns_in_order_are_the_items_of_one_input(tmp_path: Path) -> None:
    requests = from_csv(FOREST, write_csv(tmp_path, "a,b\n1,2.5\n3,4\n"))
    assert requests.inputs == [{"features": [[1, 2.5], [3, 4]]}]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("age,plan,new\nx,a,1\n", "row 1, column age"),
        ("age,plan,new\n1,a,1\n,a,1\n", "row 2, column age"),
        ("age,plan,new\n1,a,maybe\n", "BOOL"),
        ("age,plan\n1,a\n", "no column new"),
        ("age,plans,new\n1,a,1\n", "name the column plans plan"),
        ("age,plan,new\n1,a\n", "row 2"),
        ("age,plan,new\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_csv_that_does_not_fit_names_the_place(tmp_path: Path, content: str, part: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        from_csv(CHURN, write_csv(tmp_path, content))
    assert part in str(refused.value)


def test_answers_are_shown_item_by_item() -> None:
    answer = {
        "label": np.array([[b"ham"], ["박".encode()]], dtype=object),
        "score": np.array([[0.25], [0.5]], np.float32),
        "scores": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
    }
    assert items(answer, batched=True) == [
        {"label": "ham", "score": 0.25, "scores": [1.0, 2.0]},
        {"label": "박", "score": 0.5, "scores": [3.0, 4.0]},
    ]
    assert items({"y": np.array([1, 2], np.int64)}, batched=False) == [{"y": [1, 2]}]


def test_items_are_json() -> None:
    answer = {"b": np.array([[True]]), "i": np.array([[1]], np.uint64), "t": np.array([[b"\xff"]], dtype=object)}
    assert json.loads(json.dumps(items(answer, batched=True))) == [{"b": True, "i": 1, "t": "\ufffd"}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.1235),
        (True, True),
        (12, 12),
        ("x" * 200, "x" * 99 + "…"),
        ([1.0, 2.0], "[1.0, 2.0]"),
        ([0.123456] * 384, "[0.1235, 0.1235, 0.1235, 0.1235, … 384 values]"),
        ([[1, 2]] * 3, "[3 x 2: [1, 2], …]"),
        ([], "[]"),
    ],
)
def test_cells_are_short(value: Any, shown: Any) -> None:
    assert cell(value) == shown


def test_a_table_names_the_items_where_it_can() -> None:
    assert table([{"y": 1}, {"y": 2}], ["a", "b\nc"]) == (["input", "y"], [["a", 1], ["b c", 2]])
    assert table([{"y": 1}], []) == (["y"], [[1]])
    assert table([], []) == ([], [])
