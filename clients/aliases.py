"""Where a client has its aliases from, read again when they change: moving one needs no restart."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from clients.request import version_name
from conch import ledger
from conch.errors import InvalidInput, RepositoryError
from conch.ledger import LEDGER_FILE, Alias, Ledger

AliasSource = str | os.PathLike[str] | Ledger | Mapping[str, Alias | int]


class Aliases:
    """The aliases of one repository: what `Client(aliases=...)` makes of a source, and may be given itself.

    ``source`` is a model repository's folder; a Ledger; or a mapping such as ``{"spam@stable": 3}``, whose values may
    be `conch.ledger.Alias`, with a weight. A folder's conch.json is looked at no more often than every
    ``check_every_s`` seconds, and read when it has changed. ``rng`` draws who meets a canary. May be shared by clients.
    """

    def __init__(
        self,
        source: AliasSource,
        *,
        rng: random.Random | None = None,
        check_every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rng = rng or random.Random()
        self._check_every_s = check_every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._file: Path | None = None
        if isinstance(source, Ledger):
            self._ledger = source
        elif isinstance(source, Mapping):
            self._ledger = _from_mapping(source)
        else:
            self._file = _ledger_file(source)
            self._seen = _state(self._file)
            self._ledger = ledger.read(self._file.parent)
        self._looked_at_s = clock()

    def __str__(self) -> str:
        return str(self._file or "the aliases given to the client")

    def ledger(self, *, now: bool = False) -> Ledger:
        """What is known; with ``now`` the file is looked at though it was a moment ago."""
        due = now or self._clock() - self._looked_at_s >= self._check_every_s
        # Whoever comes while another reads goes on with what is known.
        if self._file is not None and due and self._lock.acquire(blocking=now):
            try:
                self._look(self._file)
            finally:
                self._lock.release()
        return self._ledger

    def _look(self, file: Path) -> None:
        self._looked_at_s = self._clock()
        state = _state(file)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._ledger = ledger.read(file.parent)
        except RepositoryError as error:
            # A client that runs must not fall over somebody's slip in an editor.
            warnings.warn(f"the aliases stay as they were: {error}", RuntimeWarning, stacklevel=2)


def _state(file: Path) -> tuple[int, int, int] | None:
    """What differs when a file was replaced or written; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _ledger_file(source: str | os.PathLike[str]) -> Path:
    folder = Path(source).absolute()
    if folder.name == LEDGER_FILE:
        folder = folder.parent
    if not folder.is_dir():
        raise InvalidInput(
            "there is no such model repository to take aliases from",
            got=source,
            expected=f"a repository's folder, which keeps them in {LEDGER_FILE}",
            fix='aliases="model_repository", or a mapping: aliases={"spam@stable": 3}',
        )
    return folder / LEDGER_FILE


def _from_mapping(source: Mapping[str, Alias | int]) -> Ledger:
    found: dict[str, dict[str, Alias]] = {}
    for text, value in source.items():
        name, _, alias = str(text).partition("@")
        if not (name and alias):
            raise InvalidInput("that is no alias", got=text, expected='MODEL@ALIAS, as {"spam@stable": 3}')
        version_name(value.version if isinstance(value, Alias) else value)
        found.setdefault(name, {})[alias] = value if isinstance(value, Alias) else Alias(name, int(value))
    return Ledger(aliases=found)
