"""A config.pbtxt's text changed to mean another message, its comments and layout kept where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format

from conch.errors import ConchError
from conch.lint.config_text import Field, UnreadableText, Value, comments, fields
from conch.model_config import ModelConfigMessage, parse, render


@dataclass(frozen=True)
class EditedText:
    """The new text; ``comments_kept`` says whether all comments are still there."""

    text: str
    comments_kept: bool


@dataclass(frozen=True)
class _Change:
    """Put ``text`` in the place of what lies from ``start`` to ``end``."""

    start: int
    end: int
    text: str


def edited(text: str, old: ModelConfigMessage, new: ModelConfigMessage) -> EditedText:
    """A text that means ``new``, from one that means ``old``; only what differs is touched.

    The result is parsed to be sure; where a place cannot be found, the text is rendered from the message instead.
    """
    try:
        changes = _block_changes(text, fields(text), old, new, len(text), 0)
        result = _apply(text, changes)
        if parse(result) == new:
            return EditedText(result, _keeps_comments(text, result))
    except (UnreadableText, ConchError):
        pass
    result = render(new)
    return EditedText(result, _keeps_comments(text, result))


def _keeps_comments(old: str, new: str) -> bool:
    return [c.text for c in comments(old)] == [c.text for c in comments(new)]


def _apply(text: str, changes: Sequence[_Change]) -> str:
    for change in sorted(changes, key=lambda c: (c.start, c.end), reverse=True):
        text = text[: change.start] + change.text + text[change.end :]
    return text


def _block_changes(text: str, written: Sequence[Field], old: Any, new: Any, end: int, depth: int) -> list[_Change]:
    """The changes to one message's fields, written in ``written``; what is added goes to ``end``."""
    changes: list[_Change] = []
    added = ""
    for descriptor in new.DESCRIPTOR.fields:
        before, after = _plain(old, descriptor), _plain(new, descriptor)
        if before == after:
            continue
        places = [f for f in written if f.name == descriptor.name]
        values = [v for f in places for v in f.values]
        if _are_changed_inside(descriptor, before, after, values):
            for value, inner_old, inner_new in zip(values, before, after, strict=True):
                if inner_old != inner_new:
                    assert value.fields is not None
                    changes += _block_changes(text, value.fields, inner_old, inner_new, value.end - 1, depth + 1)
        elif _is_map(descriptor) and before == tuple(pair for pair in after if pair in before):
            added += _rendered(new, descriptor, [pair for pair in after if pair not in before], depth)
        elif places and after and descriptor.message_type is None:
            changes.append(_Change(*places[0].span, _scalar_text(new, descriptor)))
            changes += [_removal(text, f) for f in places[1:]]
        else:
            changes += [_removal(text, f) for f in places]
            added += _rendered(new, descriptor, after, depth)
    if added:
        changes.append(_insertion(text, end, added, depth))
    return changes


def _is_map(descriptor: Any) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry


def _plain(message: Any, descriptor: Any) -> tuple[Any, ...]:
    """A field's values: a list's, a map's (key, value) pairs, one of any other field, none when it is absent."""
    value = getattr(message, descriptor.name)
    if _is_map(descriptor):
        return tuple((key, value[key]) for key in sorted(value))
    if descriptor.is_repeated:
        return tuple(value)
    if descriptor.has_presence and not message.HasField(descriptor.name):
        return ()
    return (value,)


def _are_changed_inside(
    descriptor: Any, before: tuple[Any, ...], after: tuple[Any, ...], values: Sequence[Value]
) -> bool:
    """Whether the same messages are there before and after, each found in the text."""
    same = len(before) == len(after) == len(values) > 0
    return (
        descriptor.message_type is not None
        and not _is_map(descriptor)
        and same
        and all(v.fields is not None for v in values)
    )


def _rendered(message: Any, descriptor: Any, values: Sequence[Any], depth: int) -> str:
    """Lines that say these values of a field, as protobuf writes them."""
    alone = type(message)()
    if _is_map(descriptor):
        for key, value in values:
            entry = getattr(alone, descriptor.name)
            if descriptor.message_type.fields_by_name["value"].message_type is None:
                entry[key] = value
            else:
                entry[key].CopyFrom(value)
    elif descriptor.is_repeated:
        getattr(alone, descriptor.name).extend(values)
    elif values and descriptor.message_type is not None:
        getattr(alone, descriptor.name).CopyFrom(values[0])
        getattr(alone, descriptor.name).SetInParent()
    elif values:
        setattr(alone, descriptor.name, values[0])
    lines = str(text_format.MessageToString(alone, use_short_repeated_primitives=True))
    return "".join("  " * depth + line for line in lines.splitlines(keepends=True))


def _scalar_text(message: Any, descriptor: Any) -> str:
    """The text of a scalar field's value, behind its colon; a zero is written out."""
    values = _plain(message, descriptor)
    line = _rendered(message, descriptor, values, 0)
    if line:
        return line.split(":", 1)[1].strip()
    if descriptor.enum_type is not None:
        return str(descriptor.enum_type.values_by_number[values[0]].name)
    return {str: '""', bool: "false"}.get(type(values[0]), "0")


def _removal(text: str, written: Field) -> _Change:
    """Take a field away; with its line, where nothing else is on it."""
    start = text.rfind("\n", 0, written.start) + 1
    end = text.find("\n", written.end)
    end = len(text) if end < 0 else end + 1
    if text[start : written.start].strip() or text[written.end : end].strip():
        return _Change(written.start, written.end, "")
    return _Change(start, end, "")


def _insertion(text: str, at: int, lines: str, depth: int) -> _Change:
    """Put lines before a message's closing brace, or at the end of the text."""
    line = text.rfind("\n", 0, at) + 1
    if not text[line:at].strip():
        return _Change(line, line, lines)  # the brace is on a line of its own
    if not depth:
        return _Change(at, at, "\n" + lines)
    inline = " ".join(part.strip() for part in lines.splitlines())
    return _Change(at, at, ("" if text[at - 1].isspace() else " ") + inline + " ")
