"""What text and image classifiers of Hugging Face share: labels, the activation of their logits, the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from conch.tensor_spec import Array
from export.from_huggingface_samples import strings


def classify_activation(config: Any) -> str:
    """What transformers' pipeline applies to a classifier's logits: softmax, sigmoid or none."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def labels(config: Any) -> tuple[str, ...]:
    """The names of the classes in the order of the logits, each on one line; a repeated one gets its number."""
    given = {int(index): " ".join(str(name).split()) for index, name in config.id2label.items()}
    names: list[str] = []
    for index in range(config.num_labels):
        name = given.get(index) or f"LABEL_{index}"
        names.append(f"{name} ({index})" if name in names else name)
    return tuple(names)


def class_answer(logits: Array, names: Sequence[str], activation: str, *, with_label: bool) -> dict[str, Array]:
    """A classifier's public outputs from its logits [b, classes], as transformers' pipeline computes them.

    Business rules are not the model's: ``with_label`` False leaves out the outputs that they change.
    """
    scores = torch.from_numpy(np.asarray(logits, dtype=np.float32))
    if activation != "none":
        scores = torch.softmax(scores, dim=-1) if activation == "softmax" else torch.sigmoid(scores)
    best = scores.argmax(dim=-1)
    answer = {"scores": scores.numpy()}
    if with_label:
        answer["label"] = strings(*(names[i] for i in best.tolist()))
        answer["score"] = scores.max(dim=-1, keepdim=True).values.numpy()
    return answer
