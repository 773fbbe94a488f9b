"""Token logits, offsets and the text in, `entities` STRING [1] out, a JSON list.

The work is done in entity_spans.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
from entity_spans import AGGREGATIONS, Entity, SpanError, find_entities, read_labels, read_tags
from pipeline_part import Answer, Array, Ask, PartSettings, answer_each, check_parameters

PARAMETERS = ("aggregation", "ignore_labels")


class Part:
    """Finds the entities of requests."""

    def __init__(self, settings: PartSettings) -> None:
        """Read parameters and labels. Raises: ValueError."""
        parameters = settings.parameters
        check_parameters(parameters, PARAMETERS)
        self._aggregation = parameters.get("aggregation", "simple")
        if self._aggregation not in AGGREGATIONS:
            expected = ", ".join(AGGREGATIONS)
            raise ValueError(f"parameter aggregation: got {self._aggregation!r}, expected one of {expected}")
        self._ignored = frozenset(label.strip() for label in parameters.get("ignore_labels", "O").split(","))
        self._tags = read_tags(read_labels(settings.folder / "labels.txt"))
        declared = settings.inputs.get("logits")
        if declared is None or declared[-1] not in (-1, len(self._tags)):
            got = None if declared is None else list(declared)
            raise ValueError(
                f"input logits: got {got} in the config, expected [-1, {len(self._tags)}] as in labels.txt"
            )
        if list(settings.outputs) != ["entities"]:
            names = ", ".join(settings.outputs) or "none"
            raise ValueError(f"outputs: got {names} in the config, expected entities")

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one that does not fit together is refused."""
        return answer_each(asks, self._entities, SpanError)

    def _entities(self, ask: Ask) -> dict[str, Array]:
        logits = read_input(ask, "logits", (-1, -1, len(self._tags)))
        shape = logits.shape[:2]
        kept = read_input(ask, "attention_mask", shape)
        offsets = read_input(ask, "offsets", (*shape, 2))
        texts = read_input(ask, "text", (shape[0], 1))[:, 0]
        word_ids = read_input(ask, "word_ids", shape) if "word_ids" in ask.tensors else None
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
        return {"entities": found}


def read_input(ask: Ask, name: str, shape: tuple[int, ...]) -> Array:
    """An input of a shape in which -1 is any size. Raises: SpanError."""
    due = [("any" if size == -1 else size) for size in shape]
    array = ask.tensors.get(name)
    if array is None:
        raise SpanError(f"input {name}: got nothing, expected shape {due}")
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
