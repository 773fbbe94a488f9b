"""From a classifier's scores to its answer in the graph: `label` STRING [1], `score` FP32 [1], `scores` FP32 [classes].

A classifier is one model, so the labels and the rules of --rules are constants of its graph: it answers without a
second model, and one version folder holds all that decides. labels.txt and rules.yaml lie beside model.onnx as the
record of what was compiled in; changing them there changes nothing, a new version does.

What the rules mean, how they are read and what is said about wrong ones is python_backends/classify's, whose logic is
loaded from its file and gives the answers that the graph is compared with. In one thing a graph can only do otherwise:
it cannot refuse a row. A score that is no number (NaN came in where the model takes none) reaches no threshold: the
label is `others`, or empty where there are no rules.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError
from conch.tensor_spec import Array, TensorSpec
from export.parity import LIMITS
from export.python_code import PYTHON_BACKENDS
from export.python_parts import labels_file

# As of this version GreaterOrEqual, ArgMax and GatherElements are as they are used here.
MIN_OPSET = 13

# No tolerance for scores is above this, whatever the size of the decisions that they come from.
MAX_TOLERANCE = 0.01


@dataclass(frozen=True)
class Answering:
    """How a model answers, and the estimator's own function from rows to the numbers that the answer is made of.

    ``kind`` says what ``compute`` returns: "probabilities" [rows, classes], "decision" (logits [rows, classes], whose
    softmax are the scores) or "number" [rows, 1]. ``labels`` are the classes in the order of the scores, as text; none
    for a regressor. ``rules`` are `label_scores.Rules`, read from ``rules_file``.
    """

    kind: str
    compute: Callable[[Any], Array]
    labels: tuple[str, ...] = ()
    rules: Any = None
    rules_file: Path | None = None

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The output tensors, without the batch dimension."""
        if not self.labels:
            return (TensorSpec("prediction", "FP32", (1,)),)
        return (
            TensorSpec("label", "BYTES", (1,)),
            TensorSpec("score", "FP32", (1,)),
            TensorSpec("scores", "FP32", (len(self.labels),)),
        )

    @property
    def files(self) -> dict[str, bytes | Path]:
        """The record of what was compiled in, for the version folder."""
        found: dict[str, bytes | Path] = {"labels.txt": labels_file(self.labels)} if self.labels else {}
        return found if self.rules_file is None else {**found, "rules.yaml": self.rules_file}

    @property
    def limits(self) -> Array:
        """The least score at which each label is the answer, FP32 [classes]."""
        if self.rules is None:
            return np.full(len(self.labels), -math.inf, dtype=np.float32)
        limits: Array = self.rules.limits(self.labels)
        return limits

    @property
    def others(self) -> str:
        """The label of answers that reach no threshold; without rules, of those whose score is no number."""
        return "" if self.rules is None else str(self.rules.others)


@functools.cache
def label_scores() -> Any:
    """The module python_backends/classify/label_scores.py, loaded by its path: that folder is no package of ours."""
    path = PYTHON_BACKENDS / "classify" / "label_scores.py"
    spec = importlib.util.spec_from_file_location("conch_label_scores", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def read_rules(path: Path, labels: tuple[str, ...]) -> Any:
    """The `label_scores.Rules` of a file. Raises: ExportError, with the line."""
    try:
        return label_scores().read_rules(path, labels)
    except label_scores().AssetError as error:
        raise ExportError(f"the rules cannot be used: {error}", where=path) from error


def tolerance(answering: Answering, values: Array, atol: float | None) -> float:
    """How far the graph's scores may be from the estimator's: ``atol``, or what full precision leaves.

    Large decisions differ by more, and a softmax moves by up to half of what goes into it.
    """
    if atol is not None:
        return atol
    limit = LIMITS["fp32"].difference
    largest = float(np.abs(values).max(initial=0.0)) if answering.kind == "decision" else 0.0
    return max(limit, min(limit * largest / 2, MAX_TOLERANCE))


def answer(answering: Answering, values: Array, within: float) -> dict[str, Array]:
    """What the graph is to answer, from what `Answering.compute` returned.

    A label is None where rounding decides it: where the two highest scores, or the highest and its threshold, are no
    further apart than ``within``. Raises: ValueError for values that are no numbers.
    """
    if not answering.labels:
        return {"prediction": values}
    logic = label_scores()
    scores = logic.activate(values, "softmax" if answering.kind == "decision" else "none")
    answers = logic.answer(scores, answering.labels, answering.rules)
    ordered = np.take_along_axis(answers.scores, answers.ranking, axis=1)
    best = ordered[:, 0]
    undecided = best - ordered[:, 1] <= within
    undecided |= np.abs(best - answering.limits[answers.ranking[:, 0]]) <= within
    labels = answers.labels.copy()
    labels[undecided] = None
    return {"label": labels[:, None], "score": answers.score[:, None], "scores": answers.scores}


def add_answer(graph: Any, value: str, answering: Answering) -> None:
    """End a graph in the outputs of `Answering`; ``value`` is the tensor in it that holds the numbers, of any type.

    Of a decision between two classes it may hold one column, or two of which the last decides.
    """
    from onnx import TensorProto, helper

    _node(graph, "Cast", [value], "conch_float", to=TensorProto.FLOAT)
    value = "conch_float"
    if answering.kind == "decision" and len(answering.labels) == 2:
        # One number decides between two classes: times [0, 1] it is two logits whose softmax is its sigmoid.
        last = _constant(graph, "conch_last", np.array([-1], dtype=np.int64))
        columns = _constant(graph, "conch_columns", np.array([[0.0, 1.0]], dtype=np.float32))
        _node(graph, "Gather", [value, last], "conch_decision", axis=1)
        value = _node(graph, "MatMul", ["conch_decision", columns], "conch_logits")
    shape = _constant(graph, "conch_shape", np.array([-1, len(answering.labels) or 1], dtype=np.int64))
    if not answering.labels:
        _node(graph, "Reshape", [value, shape], "prediction")
    elif answering.kind == "decision":
        _node(graph, "Reshape", [value, shape], "conch_decisions")
        _node(graph, "Softmax", ["conch_decisions"], "scores", axis=1)
    else:
        _node(graph, "Reshape", [value, shape], "scores")
    if answering.labels:
        _add_label(graph, answering)
    types = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING}
    for spec in answering.outputs:
        graph.output.append(helper.make_tensor_value_info(spec.name, types[spec.datatype], ["batch", *spec.dims]))


def _add_label(graph: Any, answering: Answering) -> None:
    """From scores [batch, classes] to score and label [batch, 1]; of equal scores the first class is the best."""
    names = _constant(graph, "conch_names", np.array(answering.labels, dtype=object))
    limits = _constant(graph, "conch_limits", answering.limits)
    others = _constant(graph, "conch_others", np.array([answering.others], dtype=object))
    _node(graph, "ArgMax", ["scores"], "conch_best", axis=1, keepdims=1)
    _node(graph, "GatherElements", ["scores", "conch_best"], "score", axis=1)
    _node(graph, "Gather", [limits, "conch_best"], "conch_limit")
    _node(graph, "Gather", [names, "conch_best"], "conch_name")
    _node(graph, "GreaterOrEqual", ["score", "conch_limit"], "conch_reached")
    _node(graph, "Where", ["conch_reached", "conch_name", others], "label")


def _node(graph: Any, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
    from onnx import helper

    graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
    return output


def _constant(graph: Any, name: str, array: Array) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))
    return name
