"""Scores, rankings, labels and rules, in plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from python_backends.classify.label_scores import (
    AssetError,
    Rules,
    ScoreError,
    activate,
    answer,
    read_labels,
    read_rules,
)

LABELS = ("ham", "spam", "promo")
SHAPES = nps.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
LOGITS = nps.arrays(np.float32, SHAPES, elements=st.floats(-(2**100), 2**100, width=32, allow_subnormal=False))
quick = settings(max_examples=80, deadline=None, derandomize=True)


def scores(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, dtype=np.float32)


@quick
@given(LOGITS)
def test_softmax_is_a_distribution_for_logits_of_any_size(logits: Any) -> None:
    got = activate(logits, "softmax")
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)
    chosen = np.take_along_axis(got, logits.argmax(axis=1)[:, None], axis=1)
    np.testing.assert_array_equal(chosen[:, 0], got.max(axis=1))


@quick
@given(LOGITS)
def test_sigmoid_is_between_0_and_1_and_symmetric(logits: Any) -> None:
    got = activate(logits, "sigmoid")
    assert got.dtype == np.float32
    assert ((got >= 0) & (got <= 1)).all()
    np.testing.assert_allclose(got + activate(-logits, "sigmoid"), 1, atol=1e-6)


def test_activations_are_those_of_torch() -> None:
    import torch

    logits = np.random.default_rng(0).normal(0, 5, (20, 7)).astype(np.float32)
    tensor = torch.from_numpy(logits)
    np.testing.assert_allclose(activate(logits, "softmax"), tensor.softmax(1).numpy(), atol=1e-6)
    np.testing.assert_allclose(activate(logits, "sigmoid"), tensor.sigmoid().numpy(), atol=1e-6)
    np.testing.assert_array_equal(activate(logits, "none"), logits)


def test_half_precision_logits_are_scored_in_float32() -> None:
    assert activate(np.array([[60000, 60000]], dtype=np.float16), "softmax").tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_nan_is_an_error_that_says_where(activation: str) -> None:
    with pytest.raises(ScoreError, match="input logits: got nan at row 1, class 2, expected numbers"):
        activate(scores((0, 0, 0), (0, 0, np.nan)), activation)


@pytest.mark.parametrize("row", [(np.inf, 0.0), (-np.inf, -np.inf)])
def test_infinities_that_leave_no_distribution_are_errors(row: tuple[float, float]) -> None:
    with pytest.raises(ScoreError, match="input logits: got"):
        activate(scores(row), "softmax")


def test_a_masked_class_gets_nothing() -> None:
    assert activate(scores((-np.inf, 3.0)), "softmax").tolist() == [[0.0, 1.0]]


@quick
@given(LOGITS)
def test_ranking_is_sorted_and_complete(values: Any) -> None:
    got = answer(values, None, None)
    ranked = np.take_along_axis(values, got.ranking, axis=1)
    assert (np.diff(ranked, axis=1) <= 0).all()
    np.testing.assert_array_equal(np.sort(got.ranking, axis=1), np.tile(np.arange(values.shape[1]), (len(values), 1)))
    np.testing.assert_array_equal(got.score, values.max(axis=1))
    np.testing.assert_array_equal(got.ranking[:, 0], values.argmax(axis=1))


@pytest.mark.parametrize(
    ("row", "rules", "label"),
    [
        ((0.2, 0.7, 0.1), None, "spam"),
        ((0.2, 0.7, 0.1), Rules("others", 0.8), "others"),
        ((0.2, 0.7, 0.1), Rules("others", 0.7), "spam"),
        ((0.2, 0.7, 0.1), Rules("others", 0.9, {"spam": 0.6}), "spam"),
        ((0.2, 0.7, 0.1), Rules("others", 0.1, {"spam": 0.75}), "others"),
        ((0.2, 0.7, 0.1), Rules("others", None, {"ham": 0.99}), "spam"),
        ((0.45, 0.55, 0.0), Rules("others", None, {"spam": 0.9}), "others"),  # ham does not step in
        ((0.2, 0.7, 0.1), Rules("ham", 0.8), "ham"),
        ((0.4, 0.4, 0.2), None, "ham"),  # of equals, the first
        ((1.0, 0.0, 0.0), Rules("others", 1.0), "ham"),
    ],
)
def test_how_rules_decide(row: tuple[float, ...], rules: Rules | None, label: str) -> None:
    got = answer(scores(row), LABELS, rules)
    assert got.labels.tolist() == [label]
    assert got.score.tolist() == [np.float32(max(row))]


@quick
@given(
    LOGITS.filter(lambda a: a.shape[1] == 3), st.floats(0, 1), st.dictionaries(st.sampled_from(LABELS), st.floats(0, 1))
)
def test_rules_change_labels_and_nothing_else(logits: Any, threshold: float, thresholds: dict[str, float]) -> None:
    probabilities = activate(logits, "softmax")
    plain = answer(probabilities, LABELS, None)
    ruled = answer(probabilities, LABELS, Rules("others", threshold, thresholds))
    np.testing.assert_array_equal(plain.scores, ruled.scores)
    np.testing.assert_array_equal(plain.ranking, ruled.ranking)
    np.testing.assert_array_equal(plain.score, ruled.score)
    limit = np.array([np.float32(thresholds.get(name, threshold)) for name in plain.labels])
    np.testing.assert_array_equal(ruled.labels, np.where(plain.score >= limit, plain.labels, "others"))


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


@pytest.mark.parametrize("text", ["ham\nspam\n", "ham\r\nspam\r\n", "ham\nspam", "ham\nspam\n\n\n"])
def test_labels_one_a_line(text: str, tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "labels.txt", text)) == ("ham", "spam")


def test_labels_keep_spaces_and_any_script(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "labels.txt", "not spam\n스팸\n")) == ("not spam", "스팸")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ham\n\nspam\n", r"labels\.txt line 2: got an empty line"),
        ("ham\nspam\nham\n", r"labels\.txt line 3: got 'ham' a second time"),
        ("", r"labels\.txt line 1: got an empty line"),
        (b"\xff\n", r"labels\.txt cannot be read"),
    ],
)
def test_wrong_labels_are_named(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=message):
        read_labels(write(tmp_path, "labels.txt", text))


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"labels\.txt cannot be read"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("others: unsure\nthreshold: 0.5\n", Rules("unsure", 0.5)),
        ("others: unsure\nthresholds:\n  spam: 0.9\n  ham: 0\n", Rules("unsure", None, {"spam": 0.9, "ham": 0.0})),
        ("others: 기타\nthreshold: 1\nthresholds: {spam: .9}\n", Rules("기타", 1.0, {"spam": 0.9})),
        ("others: no\nthreshold: 5e-1\n", Rules("no", 0.5)),  # YAML would read a boolean
    ],
)
def test_rules_are_read(text: str, rules: Rules, tmp_path: Path) -> None:
    assert read_rules(write(tmp_path, "rules.yaml", text), LABELS) == rules


def test_labels_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    path = write(tmp_path, "rules.yaml", "others: null\nthresholds: {no: 0.5, 1: 0.25, 2024-01-01: 0.75}\n")
    expected = {"no": 0.5, "1": 0.25, "2024-01-01": 0.75}
    assert read_rules(path, ("no", "1", "2024-01-01")) == Rules("null", None, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing, expected others"),
        ("- a\n- b\n", "line 1: got sequence, expected key: value pairs"),
        ("threshold: 0.5\n", "got no others"),
        ("others: x\n", "got no threshold"),
        ("others: x\nthreshhold: 0.5\n", "line 2: got the key 'threshhold'.*did you mean 'threshold'"),
        ("others: x\nthreshold: 1.5\n", "line 2: got the threshold '1.5', expected a number from 0 to 1"),
        ("others: x\nthreshold: -0.1\n", "got the threshold '-0.1'"),
        ("others: x\nthreshold: nan\n", "got the threshold 'nan'"),
        ("others: x\nthreshold: high\n", "got the threshold 'high'"),
        ("others: x\nthreshold: [0.5]\n", "line 2: got a sequence for a threshold, expected plain text"),
        ("others: x\nthresholds: {spm: 0.5}\n", "label 'spm', expected one of ham, spam, promo; did you mean 'spam'"),
        ("others: x\nthresholds:\n  spam: 0.5\n  spam: 0.6\n", "line 4: got 'spam' a second time"),
        ("others: x\nthresholds: 0.5\n", "line 2: got scalar, expected key: value pairs"),
        ("others: ''\nthreshold: 0.5\n", "line 1: got an empty others"),
        ("others: [a]\nthreshold: 0.5\n", "line 1: got a sequence for others"),
        ("others: x: y\n", r"rules\.yaml cannot be read"),
        (b"others: \xff\n", r"rules\.yaml cannot be read"),
    ],
)
def test_wrong_rules_are_named_with_their_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=message):
        read_rules(write(tmp_path, "rules.yaml", text), LABELS)
