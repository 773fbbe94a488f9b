from __future__ import annotations

import numpy as np
import pytest

from conch.errors import ParityError
from conch.tensor_spec import ModelSignature, TensorSpec
from export import parity

LOGITS = TensorSpec("logits", "FP32", (3,))
EMBEDDING = TensorSpec("embedding", "FP32", (3,))
LABEL = TensorSpec("label", "BYTES", (1,))

DUE = np.array([[3.0, 1.0, 0.5], [0.1, 2.0, 1.0]], dtype=np.float32)


def one(spec: TensorSpec, due: np.ndarray, got: np.ndarray, precision: str = "fp32", atol: float | None = None):
    return parity.compare_output(spec, [(due, got)], precision=precision, atol=atol)


def test_equal_answers_have_no_difference() -> None:
    row = one(LOGITS, DUE, DUE.copy())
    assert (row.largest_difference, row.top1_agreement) == (0.0, 1.0)
    assert row.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("precision", "added", "passes"),
    [("fp32", 2e-4, True), ("fp32", 2e-3, False), ("fp16", 2e-2, True), ("fp16", 0.2, False), ("int8", 0.5, True)],
)
def test_each_precision_has_its_own_tolerance(precision: str, added: float, passes: bool) -> None:
    got = DUE.copy()
    got[0, 0] += np.float32(added)
    if passes:
        assert one(LOGITS, DUE, got, precision).largest_difference == pytest.approx(added, rel=1e-2)
    else:
        with pytest.raises(ParityError) as raised:
            one(LOGITS, DUE, got, precision)
        assert f"{added:g}"[:4] in str(raised.value.got)
        assert "<=" in str(raised.value.expected)


def test_the_tolerance_grows_with_what_is_compared() -> None:
    due = np.array([[100_000.0, 2.0]], dtype=np.float32)
    assert one(LOGITS, due, due + 5).tolerance == pytest.approx(10.0)


def test_atol_replaces_the_tolerance() -> None:
    with pytest.raises(ParityError, match="does not answer"):
        one(LOGITS, DUE, DUE + 1e-5, atol=1e-6)
    assert one(LOGITS, DUE, DUE + 0.5, atol=1.0).tolerance == 1.0


def test_a_turned_vector_fails_by_its_cosine_even_with_a_large_atol() -> None:
    with pytest.raises(ParityError) as raised:
        one(EMBEDDING, DUE, -DUE, "int8", atol=100.0)
    assert raised.value.got == "lowest cosine -1"
    assert raised.value.expected == ">= 0.9"


def test_other_winners_fail_for_class_scores_and_not_for_embeddings() -> None:
    due = np.array([[1.0, 0.9, 0.0]] * 4, dtype=np.float32)
    got = np.array([[0.9, 1.0, 0.0]] * 4, dtype=np.float32)
    with pytest.raises(ParityError, match="logits") as raised:
        one(LOGITS, due, got, "int8")
    assert raised.value.got == "top-1 agreement 0"
    assert one(EMBEDDING, due, got, "int8").top1_agreement == 0.0


def test_a_tie_is_no_disagreement() -> None:
    due = np.array([[1.0, 0.99, 0.0]], dtype=np.float32)
    assert one(LOGITS, due, due[:, [1, 0, 2]], "int8").top1_agreement is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_number_that_is_none_is_an_infinite_difference(bad: float) -> None:
    got = DUE.copy()
    got[1, 1] = bad
    with pytest.raises(ParityError) as raised:
        one(LOGITS, DUE, got)
    assert raised.value.got == "largest difference inf"


def test_nan_and_infinity_on_both_sides_are_equal() -> None:
    due = np.array([[np.nan, -np.inf, 1.0]], dtype=np.float32)
    assert one(LOGITS, due, due.copy()).largest_difference == 0.0


def test_strings_are_compared_as_text_whatever_their_type() -> None:
    due, got = np.array([["ja"], ["nee"]], dtype=object), np.array([[b"ja"], [b"nee"]], dtype=object)
    assert one(LABEL, due, got).largest_difference == 0.0


def test_another_label_is_named_with_both_values() -> None:
    with pytest.raises(ParityError) as raised:
        one(LABEL, np.array([["ham"]], dtype=object), np.array([[b"spam"]], dtype=object))
    assert "'spam'" in str(raised.value.got)
    assert raised.value.expected == "'ham'"


def test_a_label_that_the_source_leaves_open_is_not_compared() -> None:
    due = np.array([["ham"], [None], ["spam"]], dtype=object)
    got = np.array([["ham"], ["spam"], ["spam"]], dtype=object)
    assert one(LABEL, due, got).largest_difference == 0
    with pytest.raises(ParityError, match="1 of 2 entries differ"):
        one(LABEL, due, np.array([["spam"], ["spam"], ["spam"]], dtype=object))


def test_int8_may_change_one_label_in_ten() -> None:
    due = np.array([["a"]] * 10, dtype=object)
    got = due.copy()
    got[0] = "b"
    assert one(LABEL, due, got, "int8").largest_difference == pytest.approx(0.1)
    with pytest.raises(ParityError):
        one(LABEL, due, got, "fp16")


SIGNATURE = ModelSignature((TensorSpec("x", "FP32", (1,)),), (LOGITS,), 4)


def answers(value: dict[str, np.ndarray]):
    return lambda _: value


def test_names_come_before_values() -> None:
    with pytest.raises(ParityError, match="no output logits"):
        parity.compare(answers({"scores": DUE}), answers({"logits": DUE}), [{}], SIGNATURE)


def test_shapes_come_before_values() -> None:
    with pytest.raises(ParityError, match="another shape") as raised:
        parity.compare(answers({"logits": DUE[:1]}), answers({"logits": DUE}), [{}], SIGNATURE)
    assert (raised.value.got, raised.value.expected) == ([1, 3], [2, 3])


def test_an_output_that_the_source_leaves_out_is_not_compared() -> None:
    assert parity.compare(answers({"logits": DUE}), answers({}), [{}], SIGNATURE) == ()


def test_the_worst_sample_counts() -> None:
    written = iter([DUE, DUE + np.float32(3e-4), DUE])
    (row,) = parity.compare(lambda _: {"logits": next(written)}, answers({"logits": DUE}), [{}] * 3, SIGNATURE, atol=1)
    assert (row.samples, row.largest_difference) == (3, pytest.approx(3e-4, rel=1e-2))
