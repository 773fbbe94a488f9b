"""A repository as a person asks about it: models and versions, what serves, names, and what belongs together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conch import ledger
from conch.errors import ConchError, RepositoryError
from conch.ledger import Alias, Held, Ledger, Served
from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, read_config, selected_versions
from conch.repository import Repository
from conch.switching import side_models
from server.repo_view.live_states import LiveStates


@dataclass(frozen=True)
class VersionView:
    """One version. ``loads``: the config's policy selects it; ``state`` is the server's, "" where none was asked."""

    version: int
    path: Path
    size_bytes: int
    manifest: Manifest | None
    problem: str
    signed: bool
    loads: bool
    state: str = ""
    reason: str = ""

    @property
    def source(self) -> str:
        """What it was made from, in a word; "" when it was made by hand."""
        return "" if self.manifest is None else str(self.manifest.source.get("kind", "?"))

    @property
    def created_at(self) -> str:
        """When it was made, ISO 8601; "" when that is not known."""
        return "" if self.manifest is None else self.manifest.created_at


@dataclass(frozen=True)
class ModelView:
    """One model. ``kind`` is model, pipeline (an ensemble), member (of one) or side (see conch.switching.side_models).

    ``members`` are the models of a pipeline's steps, ``used_by`` the ensembles with a step on this model.
    ``side_of`` is the model whose version a side model serves.
    """

    name: str
    kind: str
    path: Path
    config: ModelConfigMessage | None
    problem: str
    versions: tuple[VersionView, ...]
    members: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()
    side_of: str = ""
    aliases: Mapping[str, Alias] | None = None
    held: Held | None = None
    history: tuple[Served, ...] = ()
    live: bool = False

    @property
    def due(self) -> int | None:
        """The version that unversioned requests get by the files: the highest that the policy selects."""
        return max((v.version for v in self.versions if v.loads), default=None)

    @property
    def serves(self) -> int | None:
        """The version that unversioned requests get: the highest READY one; by the files where no server was asked."""
        if not self.live:
            return self.due
        return max((v.version for v in self.versions if v.state == "READY"), default=None)

    def version(self, number: int) -> VersionView:
        """One version. Raises: RepositoryError."""
        for version in self.versions:
            if version.version == number:
                return version
        raise RepositoryError(
            f"model {self.name} has no version {number}",
            where=self.path,
            got=number,
            expected=", ".join(str(v.version) for v in self.versions) or "it has none",
        )

    def main_version(self) -> VersionView | None:
        """The version that stands for the model: the one that serves, else the highest."""
        if not self.versions:
            return None
        return next((v for v in self.versions if v.version == self.serves), self.versions[-1])


@dataclass(frozen=True)
class RepositoryView:
    """All models of a repository by name, as files, ledger and server have them."""

    root: Path
    models: Mapping[str, ModelView]
    ledger: Ledger
    live: LiveStates | None

    def model(self, name: str) -> ModelView:
        """One model. Raises: RepositoryError, with the nearest name."""
        if name not in self.models:
            Repository(self.root).model_path(name)  # says which names there are
            raise RepositoryError("the folder holds no model", where=self.root / name, fix="see `conch repo lint`")
        return self.models[name]

    def version(self, name: str, number: int) -> VersionView:
        """A version of a model, or one that only its canary has. Raises: RepositoryError."""
        model = self.model(name)
        sides = [m for m in self.models.values() if m.side_of == name]
        found = next((v for m in (model, *sides) for v in m.versions if v.version == number), None)
        return found or model.version(number)

    def parts(self, name: str) -> tuple[ModelView, ...]:
        """A model and, for a pipeline, its members and theirs: what goes by one version number."""
        found: dict[str, ModelView] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop(0)
            if current in self.models and current not in found:
                found[current] = self.models[current]
                waiting += self.models[current].members
        return tuple(found.values())


def look(root: Path, live: LiveStates | None = None) -> RepositoryView:
    """Read a repository, and join what a server says of it. Raises: RepositoryError."""
    repository = Repository(root)
    if not repository.root.is_dir():
        raise RepositoryError(
            "there is no repository", where=repository.root, fix="name one with --repository, or export a model"
        )
    known = ledger.read(repository.root)
    names = repository.model_names()
    configs = {name: _config(repository, name) for name in names}
    steps = {name: _members(config) for name, (config, _) in configs.items() if config is not None}
    models = {}
    for name in names:
        config, problem = configs[name]
        side_of = _side_of(name, names)
        used_by = tuple(n for n in names if name in steps.get(n, ()))
        members = steps.get(name, ())
        models[name] = ModelView(
            name=name,
            kind="side" if side_of else "pipeline" if members else "member" if used_by else "model",
            path=repository.root / name,
            config=config,
            problem=problem,
            versions=tuple(_versions(repository, name, config, live)),
            members=members,
            used_by=used_by,
            side_of=side_of,
            aliases=known.aliases.get(name, {}),
            held=known.held.get(name),
            history=known.history.get(name, ()),
            live=live is not None,
        )
    return RepositoryView(repository.root, models, known, live)


def _config(repository: Repository, name: str) -> tuple[ModelConfigMessage | None, str]:
    """A model's config, empty where Triton completes it; or None and what is wrong with it."""
    try:
        path = repository.root / name / CONFIG_FILE
        return (read_config(path) if path.exists() else ModelConfig(name=name)), ""
    except ConchError as error:
        return None, f"{error.what}: {error.got}"


def _members(config: ModelConfigMessage) -> tuple[str, ...]:
    """The models of an ensemble's steps, in their order, each once."""
    return tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))


def _side_of(name: str, names: Iterable[str]) -> str:
    side = side_models.parse(name)
    return side.model if side and side.model in names else ""


def _versions(
    repository: Repository, name: str, config: ModelConfigMessage | None, live: LiveStates | None
) -> Iterable[VersionView]:
    try:
        numbers = repository.versions(name)
    except RepositoryError:  # a side model that has gone since its name was read
        return
    selected = selected_versions(config if config is not None else ModelConfig(), numbers)
    for number in numbers:
        path = repository.root / name / str(number)
        manifest, problem = _manifest(path / MANIFEST_FILE)
        state = live.of(name, number) if live else None
        yield VersionView(
            version=number,
            path=path,
            size_bytes=size_of(path),
            manifest=manifest,
            problem=problem,
            signed=(path / SIGNATURE_FILE).is_file(),
            loads=number in selected,
            state=state.state if state else "",
            reason=state.reason if state else "",
        )


def _manifest(path: Path) -> tuple[Manifest | None, str]:
    """A version's manifest; or None, and what is wrong with it where there is one."""
    try:
        return (Manifest.read(path), "") if path.is_file() else (None, "")
    except RepositoryError as error:
        return None, f"{error.what}: {error.got}"


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; a file with several names counts once, one that is gone not at all."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(parent, file))
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
