"""Labels and rules in a graph: it answers as python_backends/classify does, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression, LogisticRegression

from conch.errors import ExportError
from export import from_sklearn, write_model
from export.from_sklearn_answer import MIN_OPSET, Answering, add_answer, answer, label_scores, read_rules, tolerance
from export.options import ExportOptions

LABELS = ("ham", "스팸", "phishing")

RULES = {
    "a threshold": "others: unsure\nthreshold: 0.5\n",
    "thresholds by label": "others: unsure\nthresholds: {ham: 0.25, phishing: 0.75}\n",
    "both": "others: 사람에게\nthreshold: 0.5\nthresholds: {ham: 0.0, 스팸: 1.0}\n",
    "others is a label": "others: ham\nthreshold: 0.5\n",
    "a threshold that FP32 rounds": "others: unsure\nthreshold: 0.7\n",
}


def answering(kind: str, rules: str | None, folder: Path, labels: tuple[str, ...] = LABELS) -> Answering:
    """An answer without an estimator: the numbers are given."""
    if rules is None:
        return Answering(kind, np.asarray, labels)
    path = folder / "rules.yaml"
    path.write_text(rules, encoding="utf-8")
    return Answering(kind, np.asarray, labels, read_rules(path, labels), path)


def session(made: Answering, opset: int = 21) -> Any:
    """A graph of nothing but the answer: numbers [batch, any] in."""
    graph = helper.make_graph(
        [], "g", [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", None])], []
    )
    add_answer(graph, "numbers", made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session: Any, numbers: Any) -> dict[str, Any]:
    """label, score and scores of a graph."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"numbers": np.asarray(numbers, dtype=np.float32)}), strict=True))


def served(made: Answering, numbers: Any, activation: str) -> Any:
    """What the Python backend would answer."""
    logic = label_scores()
    return logic.answer(logic.activate(np.asarray(numbers, np.float32), activation), made.labels, made.rules)


# Few values, so that ties and scores exactly on a threshold are as frequent as others; and those beside thresholds.
NEAR = [float(np.nextafter(np.float32(t), np.float32(to))) for t in (0.25, 0.5, 0.7, 0.75) for to in (0, t, 1)]
SCORES = st.one_of(st.sampled_from([0.0, 1.0, *NEAR]), st.floats(0, 1, width=32))
ROWS = arrays(np.float32, st.tuples(st.integers(1, 8), st.just(3)), elements=SCORES)


@pytest.mark.parametrize("rules", [None, *RULES.values()], ids=["no rules", *RULES])
def test_probabilities_are_answered_as_the_python_backend_answers_them(rules: str | None, tmp_path: Path) -> None:
    made = answering("probabilities", rules, tmp_path)
    graph = session(made)

    @given(ROWS)
    @settings(max_examples=150, deadline=None)
    def check(numbers: Any) -> None:
        got, due = run(graph, numbers), served(made, numbers, "none")
        assert got["label"][:, 0].tolist() == due.labels.tolist()
        np.testing.assert_array_equal(got["score"][:, 0], due.score)
        np.testing.assert_array_equal(got["scores"], due.scores)

    check()


@pytest.mark.parametrize("opset", [MIN_OPSET, 17, 21])
def test_exact_hits_ties_and_thresholds_of_their_own(opset: int, tmp_path: Path) -> None:
    graph = session(answering("probabilities", RULES["thresholds by label"], tmp_path), opset)
    below = float(np.nextafter(np.float32(0.75), np.float32(0)))
    rows = {
        (0.0, 0.25, 0.75): "phishing",
        (0.0, 0.25, below): "unsure",
        (0.25, 0.25, 0.25): "ham",
        (0.0, 0.2, 0.2): "스팸",
        (0.2, 0.1, 0.1): "unsure",
    }
    assert run(graph, list(rows))["label"][:, 0].tolist() == list(rows.values())


@pytest.mark.parametrize("labels", [("no", "yes"), LABELS])
def test_decisions_are_answered_with_their_softmax(labels: tuple[str, ...], tmp_path: Path) -> None:
    made = answering("decision", "others: unsure\nthreshold: 0.8\n", tmp_path, labels)
    logits = np.random.default_rng(0).normal(0, 3, (200, len(labels))).astype(np.float32)
    if len(labels) == 2:
        logits[:, 0] = 0
    logits[0] *= 1e6
    got, due = run(session(made), logits[:, -1:] if len(labels) == 2 else logits), served(made, logits, "softmax")
    np.testing.assert_allclose(got["scores"], due.scores, atol=1e-6)
    clear = np.abs(due.score - 0.8) > 1e-5
    assert clear.sum() > 190
    assert got["label"][clear, 0].tolist() == due.labels[clear].tolist()


def test_of_a_decision_between_two_classes_the_last_column_decides(tmp_path: Path) -> None:
    graph = session(answering("decision", None, tmp_path, ("no", "yes")))
    got = run(graph, [[5.0, -1.0], [-5.0, 1.0]])
    assert got["label"][:, 0].tolist() == ["no", "yes"]
    np.testing.assert_allclose(got["score"][:, 0], 1 / (1 + np.exp(-1.0)), rtol=1e-6)


@pytest.mark.parametrize(("rules", "label"), [(None, ""), (RULES["a threshold"], "unsure")])
def test_a_score_that_is_no_number_is_no_class(rules: str | None, label: str, tmp_path: Path) -> None:
    graph = session(answering("probabilities", rules, tmp_path))
    got = run(graph, [[np.nan] * 3, [0.0, 0.1, 0.9]])
    assert got["label"][:, 0].tolist() == [label, "phishing"]
    assert np.isnan(got["score"][0, 0])


def test_a_label_that_rounding_decides_is_left_open(tmp_path: Path) -> None:
    made = answering("probabilities", RULES["a threshold"], tmp_path)
    rows = [[0.6, 0.4, 0.0], [0.6, 0.59995, 0.0], [0.50005, 0.3, 0.2], [0.49995, 0.3, 0.2], [0.49, 0.3, 0.2]]
    found = answer(made, np.array(rows, np.float32), 1e-4)
    assert found["label"][:, 0].tolist() == ["ham", None, None, None, "unsure"]
    assert found["score"].shape == (5, 1)


@pytest.mark.parametrize(
    ("kind", "largest", "atol", "due"),
    [
        ("probabilities", 1.0, None, 1e-4),
        ("decision", 1.0, None, 1e-4),
        ("decision", 50.0, None, 25e-4),
        ("decision", 1e9, None, 0.01),
        ("decision", 1e9, 0.5, 0.5),
    ],
)
def test_scores_may_differ_by_what_their_decisions_do(kind: str, largest: float, atol: float, due: float) -> None:
    made = Answering(kind, np.asarray, LABELS)
    assert tolerance(made, np.array([[0.0, -largest, 1.0]]), atol) == pytest.approx(due)


FRAME = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            "others: unsure\nthreshold: 1.5\n",
            "rules.yaml line 2: got the threshold '1.5', expected a number from 0 to 1",
        ),
        ("others: unsure\nthresholds: {hma: 0.5}\n", "did you mean 'ham'?"),
        ("threshold: 0.5\n", "got no others"),
    ],
)
def test_wrong_rules_are_refused_with_the_line(rules: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(rules, encoding="utf-8")
    options = ExportOptions(name="m", rules=path)
    model = LogisticRegression().fit(FRAME, ["ham", "ham", "spam", "spam"])
    with pytest.raises(ExportError) as raised:
        from_sklearn.source_of(model, FRAME, options)
    assert message in str(raised.value)


def test_rules_for_a_regressor_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES["a threshold"], encoding="utf-8")
    options = ExportOptions(name="m", rules=path)
    source = from_sklearn.source_of(LinearRegression().fit(FRAME, [0, 1, 2, 3]), FRAME, options)
    with pytest.raises(ExportError, match="--rules needs a model with labels"):
        write_model.with_rules(source, options)
