"""A running server as a switch sees it: make it take what is on disk, wait until it did, say why it did not.

In explicit control a load call does it. In poll mode nothing can be called: what the server says of itself is watched
until it serves what the files say.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from conch.errors import ConchError, ModelLoadError, ServerError
from conch.model_config import ModelConfigMessage, selected_versions
from conch.repository import Repository
from conch.switching.taker import NoServer
from server.control import Control
from server.http_api import ModelState
from server.lifecycle import UNLOADED
from server.load_failures import advice

__all__ = ["ExplicitServer", "Live", "NoServer", "PollServer", "connect"]

LOOK_EVERY_S = 0.05
# A server that polls may look every 15 s (its default), and takes a while to begin.
PATIENCE_S = 60.0
# After a load call the versions before go at once; what does not follow by now is not going to.
AFTER_LOAD_S = 15.0
# How long requests in flight may take before what they run on is removed; they keep it alive themselves, too.
DRAIN_S = 10.0
# A reason that was there before we changed anything is an old one, unless it stays.
OLD_REASON_S = 10.0
LOADS_AT_ONCE = 4

Self = TypeVar("Self", bound="_Server")


@dataclass(frozen=True)
class Expected:
    """How a model should be served by what lies on disk."""

    name: str
    versions: tuple[int, ...]
    config: ModelConfigMessage


class _Server(ABC):
    """What both kinds share. ``url`` is grpc://HOST:PORT."""

    runs = True

    def __init__(self, control: Control, *, patience_s: float = PATIENCE_S) -> None:
        self.control = control
        self.patience_s = patience_s

    @property
    def url(self) -> str:
        """The server's gRPC address."""
        return self.control.url

    @abstractmethod
    def take(self, root: Path, names: Sequence[str]) -> None:
        """Make the server serve these models as they lie in ``root`` now; returns when it does.

        Raises: ModelLoadError with the reason, ServerError when it does not follow, ServerUnavailable.
        """

    @abstractmethod
    def remove(self, name: str, *, wait: bool = True) -> None:
        """Make the server let go of a model that is no longer in the repository. Raises: ServerError."""

    def served(self, name: str) -> list[int]:
        """The READY versions of a model, lowest first. Raises: ServerUnavailable, ServerError."""
        return _ready(self.control.index(), name)

    def known(self, name: str) -> list[int]:
        """The versions of a model in the server's index, loaded or not. Raises: ServerUnavailable, ServerError."""
        return sorted(int(r.version) for r in self.control.index() if r.name == name and r.version.isdigit())

    def loaded_models(self) -> list[str]:
        """Every model with a READY version. Raises: ServerUnavailable, ServerError."""
        return sorted({row.name for row in self.control.index() if row.state == "READY"})

    def drain(self, name: str) -> None:
        """Wait until versions of a model that were let go have answered what they had begun; at most 10 s."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if not any(r.name == name and r.state == "UNLOADING" for r in self.control.index()):
                return
            time.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        """Close the connection."""
        self.control.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await(self, expected: Sequence[Expected], before: Sequence[ModelState], patience_s: float) -> None:
        """Look until the server serves what is expected. A model that is loading may take as long as it needs."""
        begun = patience_from = time.monotonic()
        open_ = list(expected)
        seen_loading: set[tuple[str, str]] = set()
        rows: list[ModelState] = []
        while time.monotonic() - patience_from < patience_s:
            rows = self.control.index()
            open_ = [e for e in open_ if not self._serves(e, rows)]
            if not open_:
                return
            loading = {(r.name, r.version) for r in rows if r.state == "LOADING"}
            seen_loading |= loading
            if any(name == e.name for name, _ in loading for e in open_):
                patience_from = time.monotonic()
            fresh = time.monotonic() - begun > OLD_REASON_S
            for row in (r for e in open_ for r in rows if _failed(e, r)):
                if fresh or (row.name, row.version) in seen_loading or row not in before:
                    raise ModelLoadError(
                        f"model {row.name} version {row.version} did not load",
                        where=self.url,
                        got=row.reason,
                        fix=advice(row),
                    )
            time.sleep(LOOK_EVERY_S)
        raise self._not_taken(open_[0], rows, patience_s)

    def _serves(self, expected: Expected, rows: Sequence[ModelState]) -> bool:
        if tuple(_ready(rows, expected.name)) != expected.versions:
            return False
        try:
            return agrees(expected.config, self.control.config(expected.name))
        except ServerError:
            return False  # between two looks it went: the next one tells

    def _not_taken(self, expected: Expected, rows: Sequence[ModelState], patience_s: float) -> ServerError:
        ready = ", ".join(map(str, _ready(rows, expected.name))) or "none"
        return ServerError(
            f"the server did not take the change of {expected.name} within {patience_s:g} s",
            where=self.url,
            got=f"versions that serve: {ready}",
            expected=", ".join(map(str, expected.versions)) + ", by the config.pbtxt that lies in the repository",
            fix="does it serve this repository, in explicit or poll control? see its log; "
            "--no-server changes the files only",
        )


class ExplicitServer(_Server):
    """A server in explicit control: it loads what it is told to."""

    def take(self, root: Path, names: Sequence[str]) -> None:
        """Load the models, several at once."""
        before = self.control.index()
        if len(names) == 1:
            self.control.load(names[0])
        else:
            with ThreadPoolExecutor(LOADS_AT_ONCE) as pool:
                list(pool.map(self.control.load, names))
        self._await(_expected(root, names), before, AFTER_LOAD_S)

    def remove(self, name: str, *, wait: bool = True) -> None:
        """Unload the model. The index hides what has no folder any more, and it is loaded all the same (2.51)."""
        self.control.unload(name)


class PollServer(_Server):
    """A server that looks for changes by itself."""

    def take(self, root: Path, names: Sequence[str]) -> None:
        """Wait until the server has seen the change and serves it."""
        self._await(_expected(root, names), self.control.index(), self.patience_s)

    def remove(self, name: str, *, wait: bool = True) -> None:
        """Wait until the server has seen that the model is gone."""
        if not wait:
            return
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            if not any(r.name == name and r.state in ("READY", "LOADING") for r in self.control.index()):
                return
            time.sleep(LOOK_EVERY_S)
        raise ServerError(
            f"the server still serves {name}, which was removed from the repository",
            where=self.url,
            fix="does it serve this repository in poll control? see its log",
        )


Live = NoServer | ExplicitServer | PollServer


def connect(url: str, headers: Mapping[str, str] | None = None) -> ExplicitServer | PollServer:
    """The server at a gRPC address, in the control that it runs in. Raises: ServerUnavailable, ServerError."""
    control = Control(url, headers=headers)
    try:
        return ExplicitServer(control) if control.takes_loads() else PollServer(control)
    except ConchError:
        control.close()
        raise


def agrees(wanted: ModelConfigMessage, served: ModelConfigMessage) -> bool:
    """Whether a served config is this file's, in what a switch changes. Pure.

    Triton completes what it serves (instance groups, tensors, defaults), so the rest cannot be compared. Nor can the
    version policy: a change that loads no version, as one that only lets versions go, leaves the served config as it
    was when they were loaded (measured with 2.51). The versions that serve tell.
    """
    if _steps(wanted) != _steps(served):
        return False
    return all(key in served.parameters and served.parameters[key] == value for key, value in wanted.parameters.items())


def _steps(config: ModelConfigMessage) -> list[tuple[str, int]]:
    return [(step.model_name, step.model_version) for step in config.ensemble_scheduling.step]


def _expected(root: Path, names: Sequence[str]) -> list[Expected]:
    repository = Repository(root)
    configs = {name: repository.config(name) for name in names}
    return [Expected(n, selected_versions(c, repository.versions(n)), c) for n, c in configs.items()]


def _ready(rows: Sequence[ModelState], name: str) -> list[int]:
    return sorted(int(r.version) for r in rows if r.name == name and r.state == "READY" and r.version.isdigit())


def _failed(expected: Expected, row: ModelState) -> bool:
    """A failure of what should serve; for an ensemble, a reason without a version too."""
    if row.name != expected.name or row.state != "UNAVAILABLE" or row.reason in ("", UNLOADED):
        return False
    return not row.version.isdigit() or int(row.version) in expected.versions
