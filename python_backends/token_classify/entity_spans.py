"""Token logits to entities with character offsets. Knows nothing of Triton.

Entities are what transformers' TokenClassificationPipeline makes of the same logits with `aggregation_strategy` simple
or first, but for three things: `text` is cut from the original (not put together from tokens), spans do not begin or
end with white space, and BIOES and BILOU labels are understood.

Source: https://huggingface.co/docs/transformers/main_classes/pipelines (TokenClassificationPipeline)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

AGGREGATIONS = ("simple", "first")

# Prefixes that end an entity (the last of several tokens, or the only one), in BIOES and in BILOU.
_LAST = frozenset("EL")
_ALONE = frozenset("SU")

Array = npt.NDArray[Any]


class SpanError(ValueError):
    """A request's tensors do not describe tokens of its text; the message names tensor, got and expected."""


@dataclass(frozen=True)
class Entity:
    """A piece of the text and what it is; ``start`` and ``end`` count characters of a Python ``str``."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Tag:
    """A label taken apart: ``kind`` is what follows the prefix, which is I where the label has none."""

    prefix: str
    kind: str


@dataclass(frozen=True)
class _Piece:
    """A token, or a word of several, with its label's index."""

    label: int
    score: float
    start: int
    end: int


def read_tags(labels: Sequence[str]) -> tuple[Tag, ...]:
    """Each label's prefix and kind. E-, S-, L- and U- are prefixes only where B- occurs with the same kind."""
    begun = {label[2:] for label in labels if label.startswith("B-")}
    tags = []
    for label in labels:
        prefix, kind = label[:1], label[2:]
        known = label[1:2] == "-" and (prefix in "BI" or (prefix in _LAST | _ALONE and kind in begun))
        tags.append(Tag(prefix, kind) if known else Tag("I", label))
    return tuple(tags)


def find_entities(
    text: str,
    logits: Array,
    kept: Array,
    offsets: Array,
    tags: Sequence[Tag],
    *,
    word_ids: Array | None = None,
    aggregation: str = "simple",
    ignored: Collection[str] = ("O",),
) -> list[Entity]:
    """The entities of one text, in order.

    ``logits`` [length, classes]; ``kept`` [length], 0 for padding; ``offsets`` [length, 2] into ``text``, equal for
    special tokens, which are left out; ``word_ids`` [length], -1 for none. ``first`` gives all tokens of a word the
    label of its first; without ``word_ids`` a token continues a word when letters or digits touch at its start.
    An entity's score is the mean of its tokens' (or words') best probabilities.
    """
    if offsets.size and int(offsets.max()) > len(text):
        got, due = int(offsets.max()), len(text)
        raise SpanError(f"input offsets: got {got}, expected at most {due}, the number of characters in the text")
    tokens = np.flatnonzero((kept != 0) & (offsets[:, 0] < offsets[:, 1]))
    if not len(tokens):
        return []
    best, scores = _best(logits[tokens])
    starts, ends = offsets[tokens, 0].tolist(), offsets[tokens, 1].tolist()
    pieces = [_Piece(*row) for row in zip(best, scores, starts, ends, strict=True)]
    if aggregation == "first":
        words = None if word_ids is None else word_ids[tokens].tolist()
        pieces = list(_join_words(text, pieces, words))
    return [entity for group in _group(pieces, tags) if (entity := _entity(text, group, tags, ignored)) is not None]


def _best(logits: Array) -> tuple[list[int], list[float]]:
    """The index of each row's best class and its softmax probability."""
    values = logits.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise SpanError("input logits: got values that are no finite numbers, expected finite numbers")
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    # The best class's power is exp(0).
    return values.argmax(axis=1).tolist(), (1 / powers.sum(axis=1)).tolist()


def _join_words(text: str, pieces: Sequence[_Piece], words: Sequence[int] | None) -> Iterator[_Piece]:
    word = pieces[0]
    for index in range(1, len(pieces)):
        piece = pieces[index]
        if words is not None:
            continues = words[index] == words[index - 1]
        else:
            touches = piece.start <= word.end and piece.start > 0
            continues = touches and text[piece.start - 1].isalnum() and text[piece.start].isalnum()
        if continues:
            word = _Piece(word.label, word.score, word.start, piece.end)
        else:
            yield word
            word = piece
    yield word


def _group(pieces: Sequence[_Piece], tags: Sequence[Tag]) -> Iterator[list[_Piece]]:
    """Neighbours of one kind, as long as no prefix begins or ends an entity between them."""
    group = [pieces[0]]
    for piece in pieces[1:]:
        last, tag = tags[group[-1].label], tags[piece.label]
        begins = tag.prefix == "B" or tag.prefix in _ALONE
        ended = last.prefix in _LAST or last.prefix in _ALONE
        if tag.kind == last.kind and not begins and not ended:
            group.append(piece)
        else:
            yield group
            group = [piece]
    yield group


def _entity(text: str, group: Sequence[_Piece], tags: Sequence[Tag], ignored: Collection[str]) -> Entity | None:
    kind = tags[group[0].label].kind
    start, end = group[0].start, group[-1].end
    # Some tokenizers count the space before a word as its own.
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if kind in ignored or start == end:
        return None
    score = sum(piece.score for piece in group) / len(group)
    return Entity(kind, score, start, end, text[start:end])


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of labels.txt, one a line, in the order of the logits. Raises: ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\r\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    labels = tuple(line.rstrip("\r") for line in lines)
    for number, label in enumerate(labels, 1):
        if not label.strip():
            raise ValueError(f"{path.name} line {number}: got an empty line, expected a label")
    return labels
