"""A part of a pipeline: arrays in, arrays out, and a request that is wrong fails alone. Knows nothing of Triton.

`part_model.py` makes a Triton model of one part; whole_pipeline runs several parts in one process. Shared: each folder
holds a link to this file. Arrays carry a leading batch dimension, whatever the model's config says.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ask:
    """One request: its inputs by name, and the outputs that it wants."""

    tensors: Mapping[str, Array]
    wanted: Collection[str]


@dataclass(frozen=True)
class Refusal:
    """Why a request has no answer; ``invalid`` when the request is wrong, and not the model."""

    message: str
    invalid: bool = True


Answer = dict[str, Array] | Refusal


@dataclass(frozen=True)
class PartSettings:
    """What a part is told when it is loaded.

    ``folder`` is the version folder, with the assets. ``inputs`` and ``outputs`` are the declared tensors: dims by
    name, without the batch.
    """

    folder: Path
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    parameters: Mapping[str, str]


class Part(Protocol):
    """Made from PartSettings; raises ValueError for what cannot be served, which makes the load fail."""

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order: at least the outputs that it wants, or why there are none."""


def answer_each(asks: Sequence[Ask], one: Callable[[Ask], dict[str, Array]], refused: type[ValueError]) -> list[Answer]:
    """Answer requests one by one with ``one``, which raises ``refused`` for a request that is wrong."""
    answers: list[Answer] = []
    for ask in asks:
        try:
            answers.append(one(ask))
        except refused as error:
            answers.append(Refusal(str(error)))
    return answers


def row_count(ask: Ask) -> int:
    """How many rows a request has."""
    return len(next(iter(ask.tensors.values())))


def as_one(asks: Sequence[Ask]) -> Ask:
    """Requests of the same tensors and equal shapes as one; it wants what the first does."""
    tensors = {name: np.concatenate([ask.tensors[name] for ask in asks]) for name in asks[0].tensors}
    return Ask(tensors, asks[0].wanted)


def shared_out(whole: Mapping[str, Array], asks: Sequence[Ask]) -> list[dict[str, Array]] | None:
    """Each request's rows of an answer to all; None where the answer does not keep their rows apart."""
    ends = np.cumsum([row_count(ask) for ask in asks]).tolist()
    if any(len(array) != ends[-1] for array in whole.values()):
        return None
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return [{name: array[span] for name, array in whole.items()} for span in spans]


def check_parameters(given: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError for a parameter that we do not have, with the nearest that we have."""
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, list(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(known)}{hint}")
