"""Triton model: token logits, offsets and the text in, `entities` STRING [1] out, a JSON list.

The work is done in entity_spans.py.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from entity_spans import AGGREGATIONS, Entity, SpanError, find_entities, read_labels, read_tags

PARAMETERS = ("aggregation", "ignore_labels")


class TritonPythonModel:
    """Adapts tensors; one a model instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read parameters and labels. Raises: ValueError, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        parameters = read_parameters(config)
        self._batched = config["max_batch_size"] > 0
        self._aggregation = parameters.get("aggregation", "simple")
        if self._aggregation not in AGGREGATIONS:
            expected = ", ".join(AGGREGATIONS)
            raise ValueError(f"parameter aggregation: got {self._aggregation!r}, expected one of {expected}")
        self._ignored = frozenset(label.strip() for label in parameters.get("ignore_labels", "O").split(","))
        self._tags = read_tags(read_labels(Path(args["model_repository"], args["model_version"], "labels.txt")))
        declared = pb_utils.get_input_config_by_name(config, "logits")
        if declared is None or declared["dims"][-1] not in (-1, len(self._tags)):
            got = None if declared is None else declared["dims"]
            raise ValueError(
                f"input logits: got {got} in the config, expected [-1, {len(self._tags)}] as in labels.txt"
            )
        names = [output["name"] for output in config["output"]]
        if names != ["entities"]:
            raise ValueError(f"outputs: got {', '.join(names) or 'none'} in the config, expected entities")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order; a request that does not fit together gets an error of its own."""
        responses = []
        for request in requests:
            try:
                responses.append(self._respond(request))
            except SpanError as error:
                failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=failure))
        return responses

    def _respond(self, request: Any) -> Any:
        logits = self._read(request, "logits", (-1, -1, len(self._tags)))
        shape = logits.shape[:2]
        kept = self._read(request, "attention_mask", shape)
        offsets = self._read(request, "offsets", (*shape, 2))
        texts = self._read(request, "text", (shape[0], 1))[:, 0]
        word_ids = self._read(request, "word_ids", shape, optional=True)
        found = np.empty((shape[0], 1), dtype=np.object_)
        for row, text in enumerate(texts):
            entities = find_entities(
                decode(text, row),
                logits[row],
                kept[row],
                offsets[row],
                self._tags,
                word_ids=None if word_ids is None else word_ids[row],
                aggregation=self._aggregation,
                ignored=self._ignored,
            )
            found[row, 0] = to_json(entities)
        return pb_utils.InferenceResponse([pb_utils.Tensor("entities", found if self._batched else found[0])])

    def _read(self, request: Any, name: str, shape: tuple[int, ...], *, optional: bool = False) -> Any:
        """An input with a batch dimension; -1 in ``shape`` is any size. Raises: SpanError."""
        due = [("any" if size == -1 else size) for size in shape]
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None:
            if optional:
                return None
            raise SpanError(f"input {name}: got nothing, expected shape {due}")
        array = tensor.as_numpy()
        array = array if self._batched else array[None]
        if array.ndim != len(shape) or any(d not in (-1, s) for d, s in zip(shape, array.shape, strict=True)):
            raise SpanError(f"input {name}: got shape {list(array.shape)}, expected {due}")
        return array


def decode(text: bytes, row: int) -> str:
    """Raises: SpanError when the bytes are not UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpanError(f"input text: got bytes that are not UTF-8 at index {row}, expected UTF-8 text") from error


def to_json(entities: list[Entity]) -> str:
    """A JSON list of objects; scores to six digits, all that float32 holds."""
    rows = [{**dataclasses.asdict(entity), "score": round(entity.score, 6)} for entity in entities]
    return json.dumps(rows, ensure_ascii=False)


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of config.pbtxt; upper-case ones are Triton's own. Raises: ValueError for one we do not have."""
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    return given
