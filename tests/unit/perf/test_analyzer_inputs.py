from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.errors import ConchError
from conch.tensor_spec import ModelSignature, TensorSpec
from perf.analyzer import inputs
from perf.analyzer.inputs import Inputs, for_model, from_file, next_prime
from server import tiny_models

TEXT = ModelSignature((TensorSpec("text", "BYTES", (1,)),), (), 8)
IMAGE = ModelSignature((TensorSpec("image", "BYTES", (1,)),), (), 8)
TABLE = ModelSignature((TensorSpec("age", "FP32", (1,)), TensorSpec("plan", "BYTES", (1,))), (), 8)
UNBATCHED = ModelSignature((TensorSpec("x", "INT64", (2,)),), (), 0)


def numbers(tensor: Any, dtype: str = "<f4") -> list[Any]:
    return np.frombuffer(base64.b64decode(tensor["b64"]), dtype).tolist()


def test_a_csv_gives_a_row_a_step(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("age,plan,other\n31,gold,1\n47.5,silver,2\n")
    steps = from_file(TABLE, path).steps
    assert [numbers(step["age"]) for step in steps] == [[31.0], [47.5]]
    assert steps[0]["plan"] == {"content": ["gold"], "shape": [1]}
    assert steps[0].keys() == {"age", "plan"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"text": "one"}\n\n{"text": "둘"}\n'),
        ("a.json", '{"text": ["one", "둘"]}'),
        ("a.json", '[{"text": "one"}, {"text": "둘"}]'),
        (
            "a.json",
            '{"data": [{"text": {"content": ["one"], "shape": [1]}}, {"text": '
            + '{"content": ["둘"], "shape": [1]}}]}',
        ),
    ],
)
def test_texts_of_every_form_are_the_same_steps(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    steps = from_file(TEXT, tmp_path / name).steps
    assert [step["text"] for step in steps] == [{"content": [t], "shape": [1]} for t in ("one", "둘")]


def test_images_travel_with_their_length(tmp_path: Path) -> None:
    (tmp_path / "b.PNG").write_bytes(b"\x89PNG\xff")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "notes.txt").write_text("no image")
    first, second = from_file(IMAGE, tmp_path).steps
    assert base64.b64decode(first["image"]["b64"]) == struct.pack("<I", 2) + b"\xff\xd8"
    assert base64.b64decode(second["image"]["b64"]) == struct.pack("<I", 5) + b"\x89PNG\xff"


def test_a_model_that_does_not_batch_gets_whole_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"x": [1, 2]}\n')
    (step,) = from_file(UNBATCHED, path).steps
    assert step["x"]["shape"] == [2]
    assert numbers(step["x"], "<i8") == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"text": "one"}\nno\n', "line 2"),
        ("a.jsonl", "[1]\n", "line 1"),
        ("a.jsonl", '{"text": "one"}\n{"txt": "two"}\n', "request 2"),
        ("a.jsonl", "", "no inputs"),
        ("a.xml", "<a/>", ".csv"),
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"data": [{"txt": {"content": ["one"]}}]}', "text"),
        ("a.csv", "x,y\n1,2\n", "text"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConchError) as caught:
        from_file(TEXT, tmp_path / name)
    assert says in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConchError, match="no images"):
        from_file(IMAGE, tmp_path)


def test_golden_requests_stand_in_for_a_file(tmp_path: Path) -> None:
    signature = ModelSignature((TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP32", (1,)),), 8)
    tiny_models.write_single(tmp_path, "mine", 1)
    tiny_models.record(tmp_path, "mine", 1)
    found = for_model("mine", signature, repository=tmp_path)
    assert [numbers(step["x"]) for step in found.steps] == [[1.0]]
    assert "golden" in found.origin


@pytest.mark.parametrize("name", ["spam", "unheard-of"])
def test_without_inputs_the_error_says_how_to_give_some(tmp_path: Path, name: str) -> None:
    # A model of a sample's name that takes something else does not get the sample's inputs.
    with pytest.raises(ConchError, match="no real inputs") as caught:
        for_model(name, TABLE, repository=tmp_path)
    assert "--inputs FILE" in str(caught.value)


@pytest.mark.parametrize("stride", [1, 2, 8, 31, 32, 37, 31 * 37, 64])
@pytest.mark.parametrize("count", [1, 3, 64, 100])
def test_every_thread_sends_every_input(tmp_path: Path, count: int, stride: int) -> None:
    steps = tuple({"n": {"content": [number], "shape": [1]}} for number in range(count))
    path = Inputs(steps, "made").write(tmp_path / "in.json", stride)
    data = [step["n"]["content"][0] for step in json.loads(path.read_text())["data"]]
    for start in range(min(stride, 4)):
        sent = {data[(start + turn * stride) % len(data)] for turn in range(len(data))}
        assert sent == set(range(count))


@pytest.mark.parametrize(("number", "due"), [(2, 2), (31, 31), (32, 37), (64, 67), (100, 101)])
def test_the_next_prime(number: int, due: int) -> None:
    assert next_prime(number) == due


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("spam", ("text",)),
        ("embeddings", ("text",)),
        ("digits", ("image",)),
        ("churn", ("age", "tenure", "monthly_charges", "total_charges")),
    ],
)
def test_each_sample_has_inputs_of_its_own(name: str, tensors: tuple[str, ...]) -> None:
    kind = "FP32" if name == "churn" else "BYTES"
    signature = ModelSignature(tuple(TensorSpec(t, kind, (1,)) for t in tensors), (), 8)
    found = for_model(name, signature)
    assert len(found.steps) == 64
    assert found.origin == f"perf/inputs/{name}.json"
    assert len({json.dumps(step) for step in found.steps}) > 60


def test_bfloat16_keeps_the_upper_half() -> None:
    made = inputs.tensor(TensorSpec("x", "BF16", (1,)), np.array([1.0], dtype=np.float32))
    assert base64.b64decode(made["b64"]) == b"\x80\x3f"
