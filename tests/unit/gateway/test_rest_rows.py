"""Rows to requests and answers to rows: names, chunks, order, what has no batch, bytes that are no text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.errors import GatewayError
from gateway.rest import rows
from gateway.rest.rows import chunks, one_row

AGE, NAME = TensorSpec("age", "FP32", (1,)), TensorSpec("name", "BYTES", (1,), optional=True)
PEOPLE = ModelSignature((AGE, NAME), (TensorSpec("score", "FP32", (1,)),), max_batch_size=4)
TOKENS = ModelSignature((TensorSpec("ids", "INT64", (-1,)),), (TensorSpec("sum", "INT64", (1,)),), max_batch_size=4)
ALONE = ModelSignature((TensorSpec("x", "FP32", (2,)),), (TensorSpec("y", "FP32", (2,)),))


def answer_rows(signature: ModelSignature, answer: Any, count: int) -> Any:
    return [json.loads(row) for row in rows.answer_rows(signature, answer, count)]


def objects(*values: Any) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def refusal(signature: ModelSignature, row: dict[str, Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        one_row(signature, row)
    return caught.value


class TestOneRow:
    def test_a_row_is_a_batch_of_one(self) -> None:
        arrays = one_row(PEOPLE, {"age": 39, "name": "Kim"})
        assert {name: array.tolist() for name, array in arrays.items()} == {"age": [[39.0]], "name": [[b"Kim"]]}

    def test_an_optional_input_may_be_left_out(self) -> None:
        assert list(one_row(PEOPLE, {"age": 39})) == ["age"]

    def test_a_model_without_batches_gets_no_batch_dimension(self) -> None:
        assert one_row(ALONE, {"x": [1, 2]})["x"].shape == (2,)

    def test_an_unknown_input_is_told_the_near_one(self) -> None:
        error = refusal(PEOPLE, {"agee": 39})
        assert (error.status, error.param, error.fix) == (400, "agee", "did you mean age?")
        assert "age FP32 [1]" in error.message

    def test_a_missing_input_is_named(self) -> None:
        error = refusal(PEOPLE, {"name": "Kim"})
        assert (error.what, error.param, error.got) == ("input age is missing", "age", "name")


class TestChunks:
    def test_rows_are_cut_into_requests_that_the_model_takes(self) -> None:
        made = chunks(PEOPLE, [{"age": n} for n in range(10)])
        assert [chunk.places for chunk in made] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
        assert made[2].inputs["age"].tolist() == [[8.0], [9.0]]

    def test_rows_that_name_other_inputs_are_asked_apart(self) -> None:
        made = chunks(PEOPLE, [{"age": 1}, {"age": 2, "name": "a"}, {"age": 3}, {"name": "b", "age": 4}])
        assert [(chunk.places, sorted(chunk.inputs)) for chunk in made] == [
            ((0, 2), ["age"]),
            ((1, 3), ["age", "name"]),
        ]

    def test_rows_of_different_lengths_are_asked_apart(self) -> None:
        made = chunks(TOKENS, [{"ids": [1, 2]}, {"ids": [3]}, {"ids": [4, 5]}])
        assert [(chunk.places, chunk.inputs["ids"].tolist()) for chunk in made] == [
            ((0, 2), [[1, 2], [4, 5]]),
            ((1,), [[3]]),
        ]

    def test_a_model_without_batches_is_asked_row_by_row(self) -> None:
        made = chunks(ALONE, [{"x": [1, 2]}, {"x": [3, 4]}])
        assert [chunk.inputs["x"].tolist() for chunk in made] == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("rows", "param"),
        [
            ([{"age": 1}, 5], "rows[1]"),
            ([{"age": 1}, {"ag": 1}], "rows[1].ag"),
            ([{"age": 1}, {}], "rows[1].age"),
            ([{"age": 1}] * 5 + [{"age": "x"}], "rows[5].age"),
        ],
    )
    def test_the_wrong_row_is_named(self, rows: list[Any], param: str) -> None:
        with pytest.raises(GatewayError) as caught:
            chunks(PEOPLE, rows)
        assert caught.value.param == param

    def test_a_wrong_list_is_refused_and_not_taken_for_another_length(self) -> None:
        with pytest.raises(GatewayError) as caught:
            chunks(TOKENS, [{"ids": [1, 2]}, {"ids": 5}])
        assert caught.value.param == "rows[1].ids"


class TestAnswers:
    def test_values_are_plain_where_every_dim_is_one(self) -> None:
        signature = ModelSignature(
            (AGE,), (TensorSpec("label", "BYTES", (1,)), TensorSpec("scores", "FP32", (2,))), max_batch_size=8
        )
        answer = {
            "label": objects(b"ham", "안".encode()).reshape(2, 1),
            "scores": np.array([[0.5, 0.25], [1, 0]], np.float32),
        }
        assert answer_rows(signature, answer, 2) == [
            {"label": "ham", "scores": [0.5, 0.25]},
            {"label": "안", "scores": [1.0, 0.0]},
        ]

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_numbers_lose_nothing(self, dtype: str) -> None:
        limits = np.finfo(dtype)
        given = np.array([[limits.max, limits.tiny, -limits.eps, 1 / 3, 0.1, -0.0, 1e4]], dtype)
        signature = ModelSignature((AGE,), (TensorSpec("y", "FP32", (7,)),), max_batch_size=8)
        assert np.array(answer_rows(signature, {"y": given}, 1)[0]["y"], dtype).tolist() == given[0].tolist()

    def test_numbers_that_json_lacks_are_null(self) -> None:
        signature = ModelSignature((AGE,), (TensorSpec("y", "FP32", (2, 1)),), max_batch_size=8)
        given = np.array([[[np.nan], [1.5]], [[np.inf], [-np.inf]]], np.float32)
        assert answer_rows(signature, {"y": given}, 2) == [{"y": [[None], [1.5]]}, {"y": [[None], [None]]}]

    def test_a_list_of_variable_length_stays_a_list(self) -> None:
        signature = ModelSignature((AGE,), (TensorSpec("ids", "INT64", (-1,)),), max_batch_size=8)
        assert answer_rows(signature, {"ids": np.array([[7]])}, 1) == [{"ids": [7]}]

    def test_an_answer_without_a_batch_is_one_row(self) -> None:
        assert answer_rows(ALONE, {"y": np.array([1.5, 2.5])}, 1) == [{"y": [1.5, 2.5]}]

    def test_bytes_that_are_no_text_are_base64(self) -> None:
        signature = ModelSignature((AGE,), (TensorSpec("blob", "BYTES", (2,)),), max_batch_size=8)
        assert answer_rows(signature, {"blob": objects(b"a", b"\xff").reshape(1, 2)}, 1) == [
            {"blob": ["a", {"base64": "/w=="}]}
        ]

    def test_an_image_is_base64(self) -> None:
        signature = ModelSignature((AGE,), (TensorSpec("image", "BYTES", (1,)),), max_batch_size=8)
        assert answer_rows(signature, {"image": objects(b"abc").reshape(1, 1)}, 1) == [{"image": "YWJj"}]

    def test_a_model_that_answers_nothing_answers_every_row_with_it(self) -> None:
        assert answer_rows(PEOPLE, {}, 2) == [{}, {}]

    def test_a_model_that_answers_about_fewer_rows_has_failed(self) -> None:
        with pytest.raises(GatewayError) as caught:
            answer_rows(PEOPLE, {"score": np.zeros((1, 1), np.float32)}, 2)
        assert caught.value.status == 502
