"""Logits to scores, and scores to a label: activation, ranking, and the rules that stand apart from the model.

Knows nothing of Triton. How the rules decide: the label with the highest score is the candidate (of equals, the first).
If its score reaches its threshold (its own in `thresholds`, else `threshold`, else none), it is the answer; otherwise
the answer is `others`, with the candidate's score. Scores and their ranking are never changed by rules.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

ACTIVATIONS = ("softmax", "sigmoid", "none")
RULE_KEYS = ("others", "threshold", "thresholds")

Array = npt.NDArray[Any]


class ScoreError(ValueError):
    """A request's logits cannot be scored; the message names tensor, got and expected."""


class AssetError(ValueError):
    """labels.txt or rules.yaml is wrong; the message names file, got and expected."""


@dataclass(frozen=True)
class Rules:
    """When the model's best guess is not good enough, in the scale of the scores.

    ``thresholds`` holds for the labels it names, ``threshold`` for the others; None accepts any score.
    """

    others: str
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def limits(self, labels: Sequence[str]) -> Array:
        """The least score at which each label is the answer, FP32 [classes]."""
        default = -math.inf if self.threshold is None else self.threshold
        return np.array([self.thresholds.get(label, default) for label in labels], dtype=np.float32)


@dataclass(frozen=True)
class Answers:
    """What is said of a batch.

    ``labels`` object [n] of str, after the rules (empty strings where labels have no names); ``score`` FP32 [n], of the
    best label; ``scores`` FP32 [n, classes], untouched; ``ranking`` INT64 [n, classes], best first.
    """

    labels: Array
    score: Array
    scores: Array
    ranking: Array


def activate(logits: Array, activation: str) -> Array:
    """Scores FP32 of the shape of the logits [n, classes]. Raises: ScoreError when a logit is no number.

    ``none`` takes the values as scores already. Stable for logits of any size.
    """
    values = logits.astype(np.float32, copy=False)
    bad = np.isnan(values) | np.isposinf(values) if activation == "softmax" else np.isnan(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ScoreError(
            f"input logits: got {values[row, column]} at row {row}, class {column}, expected numbers: "
            "the model in front has overflowed"
        )
    if activation == "softmax":
        highest = values.max(axis=1, keepdims=True)
        if np.isneginf(highest).any():
            raise ScoreError("input logits: got a row of -inf only, expected at least one finite number")
        powers = np.exp(values - highest)
        scores: Array = powers / powers.sum(axis=1, keepdims=True)
        return scores
    if activation == "sigmoid":
        # exp of a negative number cannot overflow.
        small = np.exp(-np.abs(values))
        return np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    return values


def answer(scores: Array, labels: Sequence[str] | None, rules: Rules | None) -> Answers:
    """The label and score of each row, decided as the module says. ``scores`` FP32 [n, classes]."""
    ranking = np.argsort(-scores, axis=1, kind="stable")
    best = ranking[:, 0]
    score = scores[np.arange(len(scores)), best]
    if labels is None:
        return Answers(np.full(len(scores), "", dtype=np.object_), score, scores, ranking)
    names = np.array(labels, dtype=np.object_)[best]
    if rules is not None:
        names[score < rules.limits(labels)[best]] = rules.others
    return Answers(names, score, scores, ranking)


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of labels.txt, one a line, in the order of the logits. Raises: AssetError."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\r\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path.name} cannot be read: {error}") from error
    labels = tuple(line.rstrip("\r") for line in lines)
    for number, label in enumerate(labels, 1):
        if not label.strip():
            raise AssetError(f"{path.name} line {number}: got an empty line, expected a label")
        if label in labels[: number - 1]:
            raise AssetError(f"{path.name} line {number}: got {label!r} a second time, expected each label once")
    return labels


def read_rules(path: Path, labels: Sequence[str]) -> Rules:
    """The rules of rules.yaml, checked against the labels. Raises: AssetError, with the line.

    Read from the document's nodes, not its values: YAML takes a label like ``no`` for a boolean and ``1`` for a number,
    and silently drops the first of two equal keys.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AssetError(f"{path.name} cannot be read: {error}") from error
    if root is None:
        raise AssetError(f"{path.name}: got nothing, expected others: LABEL and threshold or thresholds")
    document = _pairs(root, path.name)
    for key, node in document.items():
        if key not in ("others", "threshold", "thresholds"):
            expected = "others, threshold or thresholds"
            raise AssetError(
                f"{_line(path.name, node)}: got the key {key!r}, expected {expected}{_hint(key, RULE_KEYS)}"
            )
    if "others" not in document:
        raise AssetError(f"{path.name}: got no others, expected the label of answers that reach no threshold")
    others = _scalar(document["others"], path.name, "others")
    if not others.strip():
        raise AssetError(f"{_line(path.name, document['others'])}: got an empty others, expected a label")
    threshold = _number(document["threshold"], path.name) if "threshold" in document else None
    thresholds = {}
    for label, node in (_pairs(document["thresholds"], path.name) if "thresholds" in document else {}).items():
        if label not in labels:
            shown = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise AssetError(
                f"{_line(path.name, node)}: got a threshold for the label {label!r}, "
                f"expected one of {shown}{_hint(label, labels)}"
            )
        thresholds[label] = _number(node, path.name)
    if threshold is None and not thresholds:
        raise AssetError(f"{path.name}: got no threshold, expected threshold: NUMBER or thresholds: {{label: NUMBER}}")
    return Rules(others, threshold, thresholds)


def _pairs(node: Any, name: str) -> dict[str, Any]:
    """A mapping's values as nodes, by key."""
    if not isinstance(node, yaml.MappingNode):
        raise AssetError(f"{_line(name, node)}: got {node.id}, expected key: value pairs")
    pairs: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _scalar(key_node, name, "key")
        if key in pairs:
            raise AssetError(f"{_line(name, key_node)}: got {key!r} a second time, expected it once")
        pairs[key] = value_node
    return pairs


def _scalar(node: Any, name: str, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise AssetError(f"{_line(name, node)}: got a {node.id} for {what}, expected plain text")
    return str(node.value)


def _number(node: Any, name: str) -> float:
    text = _scalar(node, name, "a threshold")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise AssetError(f"{_line(name, node)}: got the threshold {text!r}, expected a number from 0 to 1")
    return value


def _line(name: str, node: Any) -> str:
    return f"{name} line {node.start_mark.line + 1}"


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
