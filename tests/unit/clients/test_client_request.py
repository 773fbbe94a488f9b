"""Requests are checked against the model before anything is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients.request import Question, build_request, split, tensor_bytes, version_name
from conch.errors import InvalidInput
from conch.tensor_spec import ModelSignature, TensorSpec

TEXT = TensorSpec("text", "BYTES", (1,))
PAIR = TensorSpec("text_pair", "BYTES", (1,), optional=True)
SCORES = TensorSpec("scores", "FP32", (2,))
MODEL = ModelSignature((TEXT, PAIR), (SCORES,), max_batch_size=4)
CHURN = ModelSignature((TensorSpec("age", "INT64", (1,)), TensorSpec("charge", "FP32", (1,))), (SCORES,), 4)
FOREST = ModelSignature((TensorSpec("features", "FP32", (3,)),), (SCORES,), 4)


def build(signature: ModelSignature, inputs: Any = None, outputs: tuple[str, ...] = (), **tensors: Any) -> Any:
    question = Question("spam", inputs, tensors, "", outputs)
    return build_request(question, signature, where="model spam at http://h:1")


@pytest.mark.parametrize(
    "inputs", [{"text": ["a", "b"]}, ["a", "b"], pd.DataFrame({"text": ["a", "b"]}), pd.Series(["a", "b"])]
)
def test_inputs_come_by_name_as_a_frame_or_bare(inputs: Any) -> None:
    request = build(MODEL, inputs)
    assert [(t.name, t.datatype, t.array.tolist()) for t in request.inputs] == [("text", "BYTES", [[b"a"], [b"b"]])]


def test_keywords_and_mapping_meet() -> None:
    request = build(MODEL, {"text": "a"}, text_pair="b")
    assert [t.name for t in request.inputs] == ["text", "text_pair"]


def test_a_frame_is_one_input_a_column() -> None:
    request = build(CHURN, pd.DataFrame({"charge": [1, 2.5], "age": [30, 40]}))
    assert {t.name: t.array.tolist() for t in request.inputs} == {"age": [[30], [40]], "charge": [[1.0], [2.5]]}


def test_a_frame_of_other_columns_is_the_one_inputs_items() -> None:
    request = build(FOREST, pd.DataFrame({"a": [1, 4], "b": [2, 5], "c": [3, 6]}))
    assert request.inputs[0].array.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("signature", "inputs", "tensors", "parts"),
    [
        (MODEL, None, {"txt": "a"}, ("no input named txt", "text BYTES [batch, 1]", "did you mean text?")),
        (MODEL, None, {"text_pair": "a"}, ("input text is missing", "text BYTES [batch, 1]")),
        (MODEL, None, {"text": [["a", "b"]]}, ("wrong shape", "text BYTES [1, 2]", "text BYTES [batch, 1]")),
        (MODEL, None, {"text": [1]}, ("takes text or bytes", "int 1")),
        (MODEL, None, {"text": ["a"] * 5}, ("at once", "a batch of 5", "at most 4", "infer_many")),
        (MODEL, None, {"text": []}, ("out of range", "0", "1 to 4")),
        (MODEL, None, {"text": ["a"], "text_pair": ["b", "c"]}, ("differ in batch size", "'text_pair': 2")),
        (MODEL, {"text": "a"}, {"text": "b"}, ("input text is given twice",)),
        (CHURN, [1, 2], {}, ("which input", "age INT64 [batch, 1]; charge FP32 [batch, 1]")),
        (CHURN, {"age": [1.5], "charge": [1]}, {}, ("wrong type", "1.5", "age INT64 [batch, 1]")),
    ],
)
def test_a_wrong_request_shows_both_sides(
    signature: ModelSignature, inputs: Any, tensors: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        build(signature, inputs, **tensors)
    message = str(refused.value)
    assert "model spam at http://h:1" in message
    missing = [part for part in parts if part not in message]
    assert missing == [], message


def test_an_unknown_output_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="no output named score") as refused:
        build(MODEL, text="a", outputs=("score",))
    assert refused.value.fix == "did you mean scores?"


@pytest.mark.parametrize(
    "column", [list("abcde"), np.array(list("abcde")), pd.Series(list("abcde"), index=[9, 8, 7, 6, 5]), iter("abcde")]
)
def test_split_keeps_rows_and_order(column: Any) -> None:
    parts = list(split({"text": column}, 2))
    assert [list(part["text"]) for part in parts] == [["a", "b"], ["c", "d"], ["e"]]


def test_split_refuses_columns_of_different_length() -> None:
    with pytest.raises(InvalidInput, match="differ in length"):
        list(split({"a": [1, 2], "b": [1]}, 2))


@pytest.mark.parametrize(("version", "name"), [(None, ""), (3, "3"), ("3", "3")])
def test_versions_are_named_as_triton_does(version: Any, name: str) -> None:
    assert version_name(version) == name


@pytest.mark.parametrize("version", [0, -1, "latest", "1.0", "٣"])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidInput, match="no model version"):
        version_name(version)


def test_the_size_on_the_wire_counts_the_lengths_of_strings() -> None:
    request = build(MODEL, text=["ab", "é"])
    assert request.payload_bytes == tensor_bytes(request.inputs[0]) == (4 + 2) + (4 + 2)
