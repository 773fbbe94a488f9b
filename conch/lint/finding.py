"""What a rule says: a Fault as the rule yields it, a Finding as the user reads it, and the mends that --fix applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from conch.model_config import ModelConfigMessage

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class EditConfig:
    """Mend config.pbtxt: ``edit`` changes a copy of the message in place. It finds its field by name, not by index."""

    what: str
    edit: Callable[[ModelConfigMessage], None]


@dataclass(frozen=True)
class Rename:
    """Mend a name on disk: one rename, refused when the target exists."""

    what: str
    source: Path
    target: Path


@dataclass(frozen=True)
class GuardFile:
    """Mend by an empty file at ``path``; a folder of that name (Python's bytecode) makes way for it."""

    what: str
    path: Path


Mend = EditConfig | Rename | GuardFile


@dataclass(frozen=True)
class Fault:
    """One thing that a rule found; the rule's number and severity are added by `conch.lint.check`.

    ``place`` is the field, tensor or edge ("input[text].dims", "preprocess.ids -> model.ids"). ``file`` None stands for
    the model's config.pbtxt. ``severity`` None stands for the rule's own. A fault with a ``mend`` can be fixed.
    ``model`` is for rules over the whole repository; elsewhere it is known.
    """

    message: str
    got: str = ""
    expected: str = ""
    fix: str = ""
    place: str = ""
    file: Path | None = None
    severity: Severity | None = None
    mend: Mend | None = None
    model: str = ""


@dataclass(frozen=True)
class Finding:
    """One fault of a repository, with all that a person needs to mend it."""

    rule: str
    severity: Severity
    model: str
    file: str
    place: str
    message: str
    got: str
    expected: str
    fix: str
    fixable: bool = False
    mend: Mend | None = field(default=None, compare=False, repr=False)
    # The model's folder: where a mend works, and what tells two models of one name apart.
    folder: Path | None = field(default=None, compare=False, repr=False)
