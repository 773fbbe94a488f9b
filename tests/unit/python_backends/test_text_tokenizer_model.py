"""The tokenizer's model.py, run by a fake of Triton's Python backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import LoadedModel, TritonError, strings

Load = Callable[..., AbstractContextManager[LoadedModel]]

INT64 = ("TYPE_INT64", [-1])
TEXT = {"text": ("TYPE_STRING", [1])}
PAIR = {**TEXT, "text_pair": ("TYPE_STRING", [1])}


@pytest.fixture
def load(version_folder: Any, small_tokenizers: Any) -> Load:
    """A function (declared outputs, inputs=..., kind=..., max_batch_size=..., **parameters) -> the loaded model."""

    @contextmanager
    def run(
        declared: Any = ("input_ids", "attention_mask"),
        *,
        inputs: Any = TEXT,
        kind: str = "bert",
        max_batch_size: int = 8,
        **parameters: str,
    ) -> Iterator[LoadedModel]:
        folder = version_folder("text_tokenizer", {"tokenizer.json": small_tokenizers[kind].path})
        dims = {name: ("TYPE_INT64", [-1, 2]) if name == "offsets" else INT64 for name in declared}
        config = fake.model_config(inputs=inputs, outputs=dims, parameters=parameters, max_batch_size=max_batch_size)
        with fake.load(folder, config) as model:
            yield model

    return run


def test_each_request_is_padded_for_itself(load: Load) -> None:
    with load() as model:
        short, long = model.execute({"text": strings("fox")}, {"text": strings("fox", "the quick brown fox jumps")})
    assert short["input_ids"].shape == (1, 3)
    assert long["input_ids"].shape[0] == 2
    assert long["attention_mask"][0].sum() == 3
    assert long["attention_mask"][1].all()


def test_merged_requests_get_what_they_get_alone(load: Load) -> None:
    requests = [{"text": strings(*texts)} for texts in (["a b"], ["c"], ["The fox, again.", ""], ["철수 🙂"])]
    with load() as model:
        together = model.execute(*requests)
        alone = [model.execute(request)[0] for request in requests]
    for merged, single in zip(together, alone, strict=True):
        np.testing.assert_array_equal(merged["input_ids"], single["input_ids"])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_text_fails_alone(place: int, load: Load) -> None:
    requests = [{"text": strings("fox")} for _ in range(3)]
    requests[place] = {"text": strings("good", b"\xff")}
    with load() as model:
        answers = model.execute(*requests)
    failed = [isinstance(answer, TritonError) for answer in answers]
    assert failed == [index == place for index in range(3)]
    error = answers[place]
    assert isinstance(error, TritonError)
    assert error.code() == TritonError.INVALID_ARG
    assert "input text: got bytes that are not UTF-8 at index 1" in error.message()
    assert "expected UTF-8" in error.message()


def test_a_text_that_the_tokenizer_refuses_fails_alone(version_folder: Any, tmp_path: Any) -> None:
    strict = Tokenizer(models.WordLevel({"fox": 0, "dog": 1}, unk_token="[UNK]"))  # and there is no [UNK]
    strict.pre_tokenizer = pre_tokenizers.Whitespace()
    strict.save(str(tmp_path / "strict.json"))
    folder = version_folder("text_tokenizer", {"tokenizer.json": tmp_path / "strict.json"})
    config = fake.model_config(inputs=TEXT, outputs={"input_ids": INT64})
    with fake.load(folder, config) as model:
        good, bad, other = model.execute(
            {"text": strings("fox dog")}, {"text": strings("cat")}, {"text": strings("dog")}
        )
    np.testing.assert_array_equal(good["input_ids"], [[0, 1]])
    np.testing.assert_array_equal(other["input_ids"], [[1]])
    assert isinstance(bad, TritonError)
    assert "input text" in bad.message()


def test_any_bytes_get_an_answer_or_an_error(load: Load) -> None:
    with load(max_length="16") as model:

        @settings(max_examples=80, deadline=None, derandomize=True)
        @given(
            st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode)), min_size=1, max_size=5)
        )
        def answers(values: list[bytes]) -> None:
            valid = [value.decode("utf-8", "ignore").encode() == value for value in values]
            together = model.execute(*({"text": strings(value)} for value in values))
            assert [isinstance(answer, dict) for answer in together] == valid

        answers()


def test_a_missing_input_is_named(load: Load) -> None:
    with load(inputs=PAIR, pairs="true") as model:
        (error,) = model.execute({"text": strings("fox")})
    assert isinstance(error, TritonError)
    assert "input text_pair: got nothing" in error.message()


def test_pairs_have_two_token_types(load: Load) -> None:
    with load(("input_ids", "token_type_ids"), inputs=PAIR, pairs="true") as model:
        answer = model.infer(text=strings("a fox"), text_pair=strings("a dog"))
    np.testing.assert_array_equal(answer["token_type_ids"], [[0, 0, 0, 0, 1, 1, 1]])


def test_all_outputs(load: Load) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids", "offsets", "word_ids")
    with load(names) as model:
        answer = model.infer(text=strings("철수 fox"))
    assert answer["offsets"].shape == (*answer["input_ids"].shape, 2)
    assert answer["word_ids"][0, 0] == -1


def test_only_requested_outputs_are_made(load: Load) -> None:
    with load() as model:
        (answer,) = model.execute({"text": strings("fox")}, outputs=["attention_mask"])
    assert list(answer) == ["attention_mask"]


def test_without_a_batch_dimension(load: Load) -> None:
    with load(max_batch_size=0) as model:
        answer = model.infer(text=np.array([b"the fox"], dtype=object))
    assert answer["input_ids"].shape == (4,)


def test_nothing_is_carried_from_one_call_to_the_next(load: Load) -> None:
    with load() as model:
        first = model.infer(text=strings("fox"))
        model.execute({"text": strings("the quick brown fox", b"\xff")})
        again = model.infer(text=strings("fox"))
    np.testing.assert_array_equal(first["input_ids"], again["input_ids"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_lenght": "128"}, "parameter max_lenght: got an unknown name.*did you mean max_length?"),
        ({"max_length": "many"}, "parameter max_length: got 'many', expected a whole number of at least 1"),
        ({"max_length": "0"}, "parameter max_length: got '0'"),
        ({"pad_to_multiple_of": "-8"}, "parameter pad_to_multiple_of: got '-8'"),
        ({"pairs": "yes"}, "parameter pairs: got 'yes', expected true or false"),
        ({"outputs": "input_ids,offsets"}, "parameter outputs: got input_ids, offsets"),
        ({"padding_side": "top"}, "padding_side: got 'top'"),
    ],
)
def test_wrong_parameters_stop_the_load(parameters: dict[str, str], message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message), load(**parameters):
        pass


def test_an_unknown_output_stops_the_load(load: Load) -> None:
    with pytest.raises(ValueError, match="output tokens: got an unknown name"), load(("tokens",)):
        pass


def test_upper_case_parameters_are_tritons_own(load: Load) -> None:
    with load(FORCE_CPU_ONLY_INPUT_TENSORS="no") as model:
        assert model.infer(text=strings("fox"))["input_ids"].shape == (1, 3)


def test_a_missing_tokenizer_stops_the_load(load: Load, version_folder: Any) -> None:
    folder = version_folder("text_tokenizer")
    config = fake.model_config(inputs=TEXT, outputs={"input_ids": INT64})
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be loaded"), fake.load(folder, config):
        pass
