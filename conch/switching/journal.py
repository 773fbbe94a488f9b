"""What is being changed, written down before the first change: whoever comes next can finish it or take it back.

    .ROOT.staging/journal.json      there is one only while a switch runs, or when one has died

In the phase "preparing" nobody has been promised the new version: it is taken back. In the phase "committed" the new
version serves, and is known to answer: the rest is done.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import RepositoryError
from conch.ledger import Held
from conch.switching.files import flush

JOURNAL_FILE = "journal.json"
# Held while a switch runs, so that it can be taken back on a disk that is full.
ROOM_FILE = "journal.room"
ROOM_BYTES = 1 << 20
FORMAT = 1

PREPARING = "preparing"
COMMITTED = "committed"

# One model after the other: a single model, or models that no live ensemble joins.
PLAIN = "plain"
# A pipeline, its members beside the ones that serve while the ensemble switches.
SIDE = "side"
# A pipeline whose members serve the version already: the ensemble alone switches.
KEPT = "kept"
# Nothing is switched: all comes up under names of its own.
CANARY = "canary"


@dataclass(frozen=True)
class Beside:
    """A file beside config.pbtxt (labels): its content before, None when it was not there, and after; base64."""

    name: str
    before: str | None
    after: str


@dataclass(frozen=True)
class Part:
    """One model of a switch.

    ``before`` is its config.pbtxt's text: None when there was no such model, "" when it had no config. ``pinned``
    serves what ``before`` does, whichever version comes. ``after`` is what it ends with. ``added``: its version folder
    comes with the switch. ``loaded``: a running server served it before. ``side`` is its side model's name during the
    switch, "" without one, and ``side_config`` that one's config. ``held``: what the ledger says of it afterwards.
    """

    name: str
    before: str | None
    pinned: str
    after: str
    added: bool
    loaded: bool
    side: str = ""
    side_config: str = ""
    beside: tuple[Beside, ...] = ()
    held: Held | None = None


@dataclass(frozen=True)
class Journal:
    """A switch: ``parts`` all get ``version``, members first, the public model ``name`` last.

    ``switched`` is the public model's config while its members' side models serve. ``previous`` served before. ``by``
    and ``at`` go into the history; without ``by`` none is written.
    """

    name: str
    version: int
    route: str
    parts: tuple[Part, ...]
    previous: int | None
    switched: str = ""
    by: str = ""
    at: str = ""
    phase: str = PREPARING
    pid: int = 0
    format: int = FORMAT

    @property
    def public(self) -> Part:
        """The model that is asked from outside."""
        return self.parts[-1]

    @property
    def members(self) -> tuple[Part, ...]:
        """All but the public model."""
        return self.parts[:-1]

    @property
    def sides(self) -> tuple[str, ...]:
        """The side models of this switch."""
        return tuple(part.side for part in self.parts if part.side)


def write(journal: Journal, staging: Path) -> None:
    """Replace the journal on disk. Raises: OSError; the one before is then still there."""
    text = json.dumps(dataclasses.asdict(journal), ensure_ascii=False)
    beside = staging / f"{JOURNAL_FILE}.new"
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, staging / JOURNAL_FILE)
    flush(staging)


def reserve_room(staging: Path) -> None:
    """Take the disk space that undoing may need. Raises: OSError when there is none."""
    with open(staging / ROOM_FILE, "wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, ROOM_BYTES)


def give_room(staging: Path) -> None:
    """Let go of the space that was held back."""
    (staging / ROOM_FILE).unlink(missing_ok=True)


def read(staging: Path) -> Journal | None:
    """The switch that runs or has died; None when there is none. Raises: RepositoryError."""
    path = staging / JOURNAL_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise RepositoryError(
                "a switch that did not end was begun by another conch",
                where=path,
                got=f"format {document['format']}",
                expected=f"format {FORMAT}",
                fix="let that conch finish it: any of its commands that change the repository does",
            )
        return _from_json(document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RepositoryError(
            "the journal of a switch cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            fix="put the config.pbtxt files in order by hand, then remove it",
        ) from error


def clear(staging: Path) -> None:
    """The switch is over: forget it."""
    (staging / JOURNAL_FILE).unlink(missing_ok=True)
    give_room(staging)
    flush(staging)


def _from_json(document: dict[str, Any]) -> Journal:
    parts = []
    for row in document.pop("parts"):
        beside = tuple(Beside(**b) for b in row.pop("beside"))
        held = row.pop("held")
        parts.append(Part(**row, beside=beside, held=Held(**held) if held else None))
    return Journal(**document, parts=tuple(parts))
