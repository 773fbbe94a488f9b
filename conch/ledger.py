"""conch.json in a repository's root: what the files of the models cannot say.

    aliases    names such as `stable` and `canary` for versions, which clients resolve
    history    which versions have served, in order, so that there is a good one to go back to
    held       the models that serve one chosen version until somebody lets go of it

Triton looks at folders only, so a file in the root changes nothing for it. The file is replaced as a whole: whoever
reads it sees the state before a change or after it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.errors import RepositoryError, nearest

LEDGER_FILE = "conch.json"
FORMAT = 1

# A number after the @ would read as a version.
ALIAS_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")

# Enough to see months of updates; a file that is read at every request's resolution must stay small.
HISTORY_LENGTH = 100


@dataclass(frozen=True)
class Alias:
    """A version under another name.

    ``model`` is what to ask Triton for: the model itself, or a side model that serves the version beside it.
    ``weight`` is the share of the public model's traffic, 0 to 1, that a client sends there by itself.
    """

    model: str
    version: int
    weight: float = 0.0


@dataclass(frozen=True)
class Served:
    """A version began to serve unversioned requests: ``at`` (ISO 8601, UTC), ``by`` which command."""

    version: int
    at: str
    by: str


@dataclass(frozen=True)
class Held:
    """A version serves because somebody chose it.

    ``policy`` is what the config said before, as it stands there: `version_policy { ... }`, or "" for nothing.
    """

    version: int
    policy: str


@dataclass(frozen=True)
class Ledger:
    """What a repository remembers, by public model name. ``history`` is oldest first.

    The methods return a changed ledger; `update` writes it.
    """

    aliases: Mapping[str, Mapping[str, Alias]] = field(default_factory=dict)
    history: Mapping[str, tuple[Served, ...]] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)

    def with_alias(self, name: str, alias_name: str, alias: Alias | None) -> Ledger:
        """The ledger with ``name@alias_name`` set, or removed with None. Raises: RepositoryError."""
        if alias is not None:
            _check_alias(name, alias_name, alias)
        of_model = {k: v for k, v in self.aliases.get(name, {}).items() if k != alias_name}
        if alias is not None:
            of_model[alias_name] = alias
        return dataclasses.replace(self, aliases=_with(self.aliases, name, of_model or None))

    def with_served(self, name: str, served: Served) -> Ledger:
        """The ledger with one more line of history; a version that serves already adds none."""
        before = self.history.get(name, ())
        if before and before[-1].version == served.version:
            return self
        return dataclasses.replace(self, history=_with(self.history, name, (*before, served)[-HISTORY_LENGTH:]))

    def with_held(self, name: str, held: Held | None) -> Ledger:
        """The ledger with a model held at a version, or let go of with None."""
        return dataclasses.replace(self, held=_with(self.held, name, held))


def read(root: Path | str) -> Ledger:
    """The ledger of a repository; empty where there is none yet. Raises: RepositoryError."""
    path = Path(root) / LEDGER_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Ledger()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise RepositoryError(
                "conch.json is of a format that this conch does not know",
                where=path,
                got=document["format"],
                expected=FORMAT,
                fix="use the conch that wrote it, or a newer one",
            )
        return _from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def update(root: Path | str, change: Callable[[Ledger], Ledger]) -> Ledger:
    """Read the ledger, change it, and replace the file; one writer at a time. Returns the new one.

    Raises: RepositoryError; the file is then as it was.
    """
    root = Path(root).absolute()
    try:
        with _locked(root) as staging:
            before = read(root)
            after = change(before)
            if after != before:
                _replace(root / LEDGER_FILE, _to_json(after), staging)
            return after
    except OSError as error:
        raise RepositoryError(
            "conch.json could not be written; it is as it was", where=error.filename or root, got=error.strerror
        ) from error


def is_alias(text: str) -> bool:
    """Whether a model's name as a user gives it names an alias: `spam@stable`."""
    return "@" in text


def resolve(ledger: Ledger, text: str) -> Alias:
    """What `spam@stable` stands for. Raises: RepositoryError, with the nearest name."""
    name, at, alias_name = text.partition("@")
    if not (name and at and alias_name):
        raise RepositoryError("that is no alias", got=text, expected="MODEL@ALIAS, e.g. spam@stable")
    of_model = ledger.aliases.get(name)
    if of_model is None:
        close = nearest(name, ledger.aliases)
        raise RepositoryError(
            f"model {name} has no aliases",
            got=text,
            expected=", ".join(sorted(ledger.aliases)) or "no model of the repository has any",
            fix=f"did you mean {close}@{alias_name}?" if close else f"set one: conch repo alias {text} VERSION",
        )
    if alias_name not in of_model:
        close = nearest(alias_name, of_model)
        raise RepositoryError(
            f"model {name} has no alias {alias_name}",
            got=text,
            expected=", ".join(f"{name}@{a}" for a in sorted(of_model)),
            fix=f"did you mean {name}@{close}?" if close else f"set it: conch repo alias {text} VERSION",
        )
    return of_model[alias_name]


def _check_alias(name: str, alias_name: str, alias: Alias) -> None:
    if not ALIAS_NAME.match(alias_name):
        raise RepositoryError(
            "that is no name for an alias",
            where=name,
            got=alias_name,
            expected="letters, digits, '_' and '-', the first a letter",
        )
    if not 0 <= alias.weight <= 1:
        raise RepositoryError(
            "a weight is a share of the traffic", where=f"{name}@{alias_name}", got=alias.weight, expected="0 to 1"
        )


def _with(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the table with one entry set, or taken out with None."""
    copy = {k: v for k, v in table.items() if k != key}
    if value is not None:
        copy[key] = value
    return copy


def _from_json(document: Mapping[str, Any]) -> Ledger:
    aliases = {n: {a: Alias(**row) for a, row in rows.items()} for n, rows in document["aliases"].items()}
    history = {n: tuple(Served(**row) for row in rows) for n, rows in document["history"].items()}
    return Ledger(aliases, history, {n: Held(**row) for n, row in document["held"].items()})


def _to_json(ledger: Ledger) -> str:
    document = {"format": FORMAT, **dataclasses.asdict(ledger)}
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


@contextmanager
def _locked(root: Path) -> Iterator[Path]:
    """Hold the ledger's lock; gives the staging folder, which is on the root's file system."""
    staging = root.parent / f".{root.name}.staging"
    staging.mkdir(exist_ok=True)
    with open(staging / "ledger.lock", "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield staging


def _replace(path: Path, text: str, staging: Path) -> None:
    beside = staging / LEDGER_FILE
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unreadable(path: Path, error: Exception) -> RepositoryError:
    return RepositoryError(
        "conch.json cannot be read",
        where=path,
        got=f"{type(error).__name__}: {error}",
        fix="put it back from a backup, or remove it: aliases and history are lost, and models serve as before",
    )
