"""Triton model: `logits` [classes] in, `label`, `score` and `scores` out. The work is done in label_scores.py.

The outputs are those that the config declares, of: `label` STRING [1], `score` FP32 [1], `scores` FP32 [classes],
`top_labels` STRING [k], `top_scores` FP32 [k].
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from label_scores import ACTIVATIONS, ScoreError, activate, answer, read_labels, read_rules

PARAMETERS = ("activation", "top_k")
OUTPUTS = ("label", "score", "scores", "top_labels", "top_scores")


class TritonPythonModel:
    """Adapts tensors; one a model instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read parameters, labels and rules. Raises: ValueError, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        parameters = read_parameters(config)
        self._batched = config["max_batch_size"] > 0
        self._activation = parameters.get("activation", "softmax")
        if self._activation not in ACTIVATIONS:
            raise ValueError(f"parameter activation: got {self._activation!r}, expected {', '.join(ACTIVATIONS)}")
        self._outputs = {output["name"]: output["dims"] for output in config["output"]}
        for name in self._outputs:
            if name not in OUTPUTS:
                raise ValueError(f"output {name}: got an unknown name, expected one of {', '.join(OUTPUTS)}")
        labels_file, rules_file = folder / "labels.txt", folder / "rules.yaml"
        named = {"label", "top_labels"} & set(self._outputs)
        self._labels = read_labels(labels_file) if named or labels_file.exists() else None
        self._rules = read_rules(rules_file, self._labels or ()) if rules_file.exists() else None
        self._top_k = read_top_k(parameters)
        self._classes = self._check_sizes(config)

    def _check_sizes(self, config: Mapping[str, Any]) -> int | None:
        """The number of classes, where labels.txt or the config says it. Raises: ValueError when they differ."""
        declared = pb_utils.get_input_config_by_name(config, "logits")
        if declared is None:
            raise ValueError("input logits: got none in the config, expected FP32 [classes]")
        sizes = {"labels.txt": len(self._labels)} if self._labels is not None else {}
        for name, dims in (("input logits", declared["dims"]), ("output scores", self._outputs.get("scores", [-1]))):
            if dims[-1] != -1:
                sizes[name] = dims[-1]
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"number of classes: got {got}, expected the same everywhere")
        classes = next(iter(sizes.values()), None)
        for name in ("top_labels", "top_scores"):
            k = self._outputs.get(name, [self._top_k])[-1]
            if k not in (-1, self._top_k):
                raise ValueError(f"output {name}: got [{k}] in the config, expected [{self._top_k}], as top_k says")
        if classes is not None and self._top_k > classes:
            raise ValueError(f"parameter top_k: got {self._top_k}, expected at most the {classes} classes")
        return classes

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request that cannot be scored gets an error of its own."""
        responses = []
        for request in requests:
            try:
                responses.append(self._respond(request))
            except ScoreError as error:
                failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=failure))
        return responses

    def _respond(self, request: Any) -> Any:
        logits = self._logits_of(request)
        answers = answer(activate(logits, self._activation), self._labels, self._rules)
        top = answers.ranking[:, : self._top_k]
        requested = request.requested_output_names()
        tensors = []
        for name in self._outputs:
            if name not in requested:
                continue
            if name == "label":
                array = answers.labels[:, None]
            elif name == "score":
                array = answers.score[:, None]
            elif name == "scores":
                array = answers.scores
            elif name == "top_labels":
                array = np.array(self._labels, dtype=np.object_)[top]
            else:
                array = np.take_along_axis(answers.scores, top, axis=1)
            tensors.append(pb_utils.Tensor(name, array if self._batched else array[0]))
        return pb_utils.InferenceResponse(tensors)

    def _logits_of(self, request: Any) -> Any:
        """FP32 [n, classes]. Raises: ScoreError."""
        tensor = pb_utils.get_input_tensor_by_name(request, "logits")
        due = f"[batch, {'classes' if self._classes is None else self._classes}]"
        if tensor is None:
            raise ScoreError(f"input logits: got nothing, expected FP32 {due}")
        array = tensor.as_numpy()
        logits = array if self._batched else array[None]
        if logits.ndim != 2 or logits.shape[1] < self._top_k or logits.shape[1] != (self._classes or logits.shape[1]):
            raise ScoreError(f"input logits: got shape {list(array.shape)}, expected {due}")
        return logits


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of config.pbtxt; upper-case ones are Triton's own. Raises: ValueError for one we do not have."""
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    return given


def read_top_k(parameters: Mapping[str, str]) -> int:
    """How many labels `top_labels` lists. Raises: ValueError."""
    value = parameters.get("top_k", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"parameter top_k: got {value!r}, expected a whole number of at least 1")
    return int(value)
