"""Rules that a comment in config.pbtxt switches off for its model: `# conch-lint: off R21 because clients pad`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from conch.errors import ConfigError
from conch.lint.config_text import Comment, comments
from conch.lint.finding import Fault
from conch.lint.model import ModelFolder
from conch.lint.options import Off, off

_MARK = "conch-lint"
_OFF = re.compile(
    r"^conch-lint:\s*off\s+(?P<rules>[^\s,]+(?:\s*,\s*[^\s,]+)*)\s*(?:because\b:?\s*(?P<reason>.*))?$", re.I
)
_EXAMPLE = "# conch-lint: off R21 because clients send one shape only"


def offs_of(model: ModelFolder) -> tuple[Off, ...]:
    """What the comments of a model's config.pbtxt switch off."""
    return tuple(entry for entry in _read(model) if isinstance(entry, Off))


def comment_faults(model: ModelFolder) -> Iterator[Fault]:
    """What is wrong with such comments: a rule that does not exist, or no reason."""
    return (entry for entry in _read(model) if isinstance(entry, Fault))


def _read(model: ModelFolder) -> Iterator[Off | Fault]:
    if _MARK not in model.config_text:
        return
    for comment in comments(model.config_text):
        if comment.text.startswith(_MARK):
            yield from _entries(model, comment)


def _entries(model: ModelFolder, comment: Comment) -> Iterator[Off | Fault]:
    found = _OFF.match(comment.text)
    place = f"line {comment.line}"
    if found is None:
        yield Fault("a comment for the linter is not understood", f"# {comment.text}", _EXAMPLE, _EXAMPLE, place)
        return
    for number in re.split(r"\s*,\s*", found["rules"]):
        where = f"{model.config_path}, {place}"
        try:
            yield off(number, found["reason"] or "", models=(model.name,), where=where)
        except ConfigError as error:
            yield Fault(error.what, f"# {comment.text}", str(error.expected or ""), error.fix or _EXAMPLE, place)
