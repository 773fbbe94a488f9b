"""The classifier's model.py, run by a fake of Triton's Python backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import LoadedModel, TritonError

Load = Callable[..., AbstractContextManager[LoadedModel]]

LABEL, SCORE = ("TYPE_STRING", [1]), ("TYPE_FP32", [1])
PUBLIC = {"label": LABEL, "score": SCORE, "scores": ("TYPE_FP32", [3])}
LABELS = "ham\nspam\npromo\n"


@pytest.fixture
def load(version_folder: Any) -> Load:
    """A function (outputs=..., classes=..., labels=..., rules=..., **parameters) -> the loaded model."""

    @contextmanager
    def run(
        outputs: Mapping[str, Any] = PUBLIC,
        *,
        classes: int = 3,
        labels: str | None = LABELS,
        rules: str | None = None,
        max_batch_size: int = 8,
        **parameters: str,
    ) -> Iterator[LoadedModel]:
        assets = {"labels.txt": labels, "rules.yaml": rules}
        folder = version_folder("classify", {name: text for name, text in assets.items() if text is not None})
        config = fake.model_config(
            inputs={"logits": ("TYPE_FP32", [classes])},
            outputs=outputs,
            parameters=parameters,
            max_batch_size=max_batch_size,
        )
        with fake.load(folder, config) as model:
            yield model

    return run


def logits(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, dtype=np.float32)


def test_label_score_and_scores(load: Load) -> None:
    with load() as model:
        answer = model.infer(logits=logits((0, 2, 0), (5, 0, 0)))
    assert answer["label"].tolist() == [[b"spam"], [b"ham"]]
    np.testing.assert_allclose(answer["scores"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(answer["score"][:, 0], answer["scores"].max(axis=1))


def test_rules_stand_apart_from_the_model(load: Load) -> None:
    with load(rules="others: 기타\nthreshold: 0.5\nthresholds: {spam: 0.99}\n", activation="none") as model:
        answer = model.infer(logits=logits((0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.4, 0.3, 0.3)))
    assert [label.decode() for label in answer["label"][:, 0]] == ["ham", "기타", "기타"]
    np.testing.assert_array_equal(answer["score"][:, 0], logits((0.6, 0.8, 0.4))[0])


def test_top_k(load: Load) -> None:
    outputs = {"top_labels": ("TYPE_STRING", [2]), "top_scores": ("TYPE_FP32", [2])}
    with load(outputs, top_k="2", rules="others: unsure\nthreshold: 1\n") as model:
        answer = model.infer(logits=logits((0, 3, 1)))
    assert answer["top_labels"].tolist() == [[b"spam", b"promo"]]
    assert answer["top_scores"][0, 0] > answer["top_scores"][0, 1]


def test_one_logit_and_a_sigmoid_is_a_reranker(load: Load) -> None:
    with load({"score": SCORE}, classes=1, labels=None, activation="sigmoid") as model:
        answer = model.infer(logits=logits((0.0,), (100.0,), (-100.0,)))
    np.testing.assert_allclose(answer["score"], [[0.5], [1.0], [0.0]], atol=1e-6)


def test_without_a_batch_dimension(load: Load) -> None:
    with load(max_batch_size=0) as model:
        answer = model.infer(logits=np.array([0, 2, 0], dtype=np.float32))
    assert answer["label"].tolist() == [b"spam"]
    assert answer["scores"].shape == (3,)


def test_only_requested_outputs_are_made(load: Load) -> None:
    with load() as model:
        (answer,) = model.execute({"logits": logits((0, 2, 0))}, outputs=["label"])
    assert answer == {"label": np.array([[b"spam"]], dtype=object)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (logits((0, np.nan, 0)), "input logits: got nan at row 0, class 1"),
        (logits((0, 1)), r"input logits: got shape \[1, 2\], expected \[batch, 3\]"),
        (np.zeros((1, 1, 3), dtype=np.float32), r"input logits: got shape \[1, 1, 3\]"),
    ],
)
def test_bad_logits_fail_alone(bad: Any, message: str, load: Load) -> None:
    good = {"logits": logits((0, 2, 0))}
    with load() as model:
        first, error, last = model.execute(good, {"logits": bad}, good)
    assert first["label"].tolist() == last["label"].tolist() == [[b"spam"]]
    assert isinstance(error, TritonError)
    assert error.code() == TritonError.INVALID_ARG
    assert re.search(message, error.message())


def test_a_missing_input_is_named(load: Load) -> None:
    with load() as model:
        (error,) = model.execute({})
    assert isinstance(error, TritonError)
    assert error.message() == "input logits: got nothing, expected FP32 [batch, 3]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "parameter activation: got 'relu', expected softmax, sigmoid, none"),
        ({"top_k": "0"}, "parameter top_k: got '0'"),
        ({"top_k": "4"}, "parameter top_k: got 4, expected at most the 3 classes"),
        ({"activaton": "none"}, "parameter activaton: got an unknown name.*did you mean activation"),
        ({"classes": 4}, "number of classes: got labels.txt has 3, input logits has 4"),
        ({"labels": "ham\nspam\n"}, "number of classes: got labels.txt has 2"),
        ({"labels": None}, r"labels\.txt cannot be read"),
        ({"rules": "others: x\nthresholds: {hamm: 1}"}, "did you mean 'ham'"),
        ({"outputs": {"lable": LABEL}}, "output lable: got an unknown name"),
        (
            {"outputs": {"top_labels": ("TYPE_STRING", [2])}},
            r"output top_labels: got \[2\] in the config, expected \[1\]",
        ),
    ],
)
def test_what_cannot_work_stops_the_load(options: dict[str, Any], message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message), load(**options):
        pass
