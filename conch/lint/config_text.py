"""The text of a config.pbtxt, with the places and comments that protobuf's own parser drops.

Protobuf says what a text means; this module only says where a field is written, so that a value can be changed without
losing what a person wrote around it, and what the comments say.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<mark>[{}<>\[\]:;,])
      | (?P<word>[^\s\#"'{}<>\[\]:;,]+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Comment:
    """A comment without its '#', and the line that it is on, from 1."""

    text: str
    line: int


@dataclass(frozen=True)
class Value:
    """Where a scalar or a message is written; ``fields`` are those of a message, None for a scalar."""

    start: int
    end: int
    fields: tuple[Field, ...] | None = None


@dataclass(frozen=True)
class Field:
    """Where a field is written: its name begins at ``start``, a ',' or ';' behind it ends at ``end``.

    ``values`` has as many as are written in a list, ``span`` is where all of them lie, brackets included.
    """

    name: str
    start: int
    end: int
    span: tuple[int, int]
    values: tuple[Value, ...]


class UnreadableText(Exception):
    """The text is not laid out as this reader knows it."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def comments(text: str) -> tuple[Comment, ...]:
    """Every comment, in order; a '#' in a string is none."""
    if "#" not in text:
        return ()
    found = (t for t in _tokens(text) if t.kind == "comment")
    return tuple(Comment(t.text[1:].strip(), text.count("\n", 0, t.start) + 1) for t in found)


def fields(text: str) -> tuple[Field, ...]:
    """The fields of a text that protobuf has parsed already. Raises: UnreadableText."""
    return _Reader(text).block("")


def field_names(text: str) -> frozenset[str]:
    """The names of the fields that are written at the top of a text; none when it cannot be read."""
    try:
        return frozenset(f.name for f in fields(text))
    except (UnreadableText, RecursionError):
        return frozenset()


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens, until the end or until what no token begins with."""
    at = 0
    while match := _TOKEN.match(text, at):
        at = match.end()
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match.group(), match.start(), at)


class _Reader:
    """Goes through the tokens once."""

    def __init__(self, text: str) -> None:
        self._tokens = [t for t in _tokens(text) if t.kind != "comment"]
        self._at = 0

    def block(self, closing: str) -> tuple[Field, ...]:
        """The fields up to a closing mark, which is not taken; "" stands for the text's end."""
        found = []
        while self._peek() != closing:
            found.append(self._field())
        return tuple(found)

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self) -> _Token:
        if self._at == len(self._tokens):
            raise UnreadableText
        self._at += 1
        return self._tokens[self._at - 1]

    def _field(self) -> Field:
        name = self._take()
        if name.kind != "word":
            raise UnreadableText
        if self._peek() == ":":
            self._take()
        begin = self._tokens[self._at].start if self._peek() else name.end
        values = self._list() if self._peek() == "[" else (self._value(),)
        end = self._tokens[self._at - 1].end
        behind = self._take().end if self._peek() in (",", ";") else end
        return Field(name.text, name.start, behind, (begin, end), values)

    def _list(self) -> tuple[Value, ...]:
        self._take()
        values: list[Value] = []
        while self._peek() != "]":
            values.append(self._value())
            if self._peek() == ",":
                self._take()
        self._take()
        return tuple(values)

    def _value(self) -> Value:
        first = self._take()
        if first.text in ("{", "<"):
            inner = self.block("}" if first.text == "{" else ">")
            return Value(first.start, self._take().end, inner)
        if first.kind not in ("word", "string"):
            raise UnreadableText
        last = first
        while first.kind == "string" and self._at < len(self._tokens) and self._tokens[self._at].kind == "string":
            last = self._take()  # strings side by side are one
        if first.text == "-":
            last = self._take()
        return Value(first.start, last.end)
