"""`logits` [classes] in, `label`, `score` and `scores` out. The work is done in label_scores.py.

The outputs are those that the config declares, of: `label` STRING [1], `score` FP32 [1], `scores` FP32 [classes],
`top_labels` STRING [k], `top_scores` FP32 [k].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from label_scores import ACTIVATIONS, ScoreError, activate, answer, read_labels, read_rules
from pipeline_part import Answer, Array, Ask, PartSettings, answer_each, check_parameters

PARAMETERS = ("activation", "top_k")
OUTPUTS = ("label", "score", "scores", "top_labels", "top_scores")


class Part:
    """Scores the logits of requests."""

    def __init__(self, settings: PartSettings) -> None:
        """Read parameters, labels and rules. Raises: ValueError."""
        parameters = settings.parameters
        check_parameters(parameters, PARAMETERS)
        self._activation = parameters.get("activation", "softmax")
        if self._activation not in ACTIVATIONS:
            raise ValueError(f"parameter activation: got {self._activation!r}, expected {', '.join(ACTIVATIONS)}")
        self._outputs = tuple(settings.outputs)
        for name in self._outputs:
            if name not in OUTPUTS:
                raise ValueError(f"output {name}: got an unknown name, expected one of {', '.join(OUTPUTS)}")
        labels_file, rules_file = settings.folder / "labels.txt", settings.folder / "rules.yaml"
        named = {"label", "top_labels"} & set(self._outputs)
        self._labels = read_labels(labels_file) if named or labels_file.exists() else None
        self._rules = read_rules(rules_file, self._labels or ()) if rules_file.exists() else None
        self._top_k = read_top_k(parameters)
        self._classes = self._check_sizes(settings)

    def _check_sizes(self, settings: PartSettings) -> int | None:
        """The number of classes, where labels.txt or the config says it. Raises: ValueError when they differ."""
        declared = settings.inputs.get("logits")
        if declared is None:
            raise ValueError("input logits: got none in the config, expected FP32 [classes]")
        sizes = {"labels.txt": len(self._labels)} if self._labels is not None else {}
        for name, dims in (("input logits", declared), ("output scores", settings.outputs.get("scores", (-1,)))):
            if dims[-1] != -1:
                sizes[name] = dims[-1]
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"number of classes: got {got}, expected the same everywhere")
        classes = next(iter(sizes.values()), None)
        for name in ("top_labels", "top_scores"):
            k = settings.outputs.get(name, (self._top_k,))[-1]
            if k not in (-1, self._top_k):
                raise ValueError(f"output {name}: got [{k}] in the config, expected [{self._top_k}], as top_k says")
        if classes is not None and self._top_k > classes:
            raise ValueError(f"parameter top_k: got {self._top_k}, expected at most the {classes} classes")
        return classes

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one that cannot be scored is refused."""
        return answer_each(asks, self._score, ScoreError)

    def _score(self, ask: Ask) -> dict[str, Array]:
        answers = answer(activate(self._logits_of(ask), self._activation), self._labels, self._rules)
        top = answers.ranking[:, : self._top_k]
        arrays: dict[str, Array] = {}
        for name in self._outputs:
            if name not in ask.wanted:
                continue
            if name == "label":
                arrays[name] = answers.labels[:, None]
            elif name == "score":
                arrays[name] = answers.score[:, None]
            elif name == "scores":
                arrays[name] = answers.scores
            elif name == "top_labels":
                arrays[name] = np.array(self._labels, dtype=np.object_)[top]
            else:
                arrays[name] = np.take_along_axis(answers.scores, top, axis=1)
        return arrays

    def _logits_of(self, ask: Ask) -> Array:
        """FP32 [n, classes]. Raises: ScoreError."""
        logits = ask.tensors.get("logits")
        due = f"[batch, {'classes' if self._classes is None else self._classes}]"
        if logits is None:
            raise ScoreError(f"input logits: got nothing, expected FP32 {due}")
        if logits.ndim != 2 or logits.shape[1] < self._top_k or logits.shape[1] != (self._classes or logits.shape[1]):
            raise ScoreError(f"input logits: got shape {list(logits.shape)}, expected {due}")
        return logits


def read_top_k(parameters: Mapping[str, str]) -> int:
    """How many labels `top_labels` lists. Raises: ValueError."""
    value = parameters.get("top_k", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"parameter top_k: got {value!r}, expected a whole number of at least 1")
    return int(value)
