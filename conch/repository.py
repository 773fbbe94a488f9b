"""Models, versions and manifests on disk.

    ROOT/NAME/config.pbtxt           how Triton serves the model
    ROOT/NAME/N/...                  version N: code, assets, weights; never changed once it is there
    ROOT/NAME/N/manifest.json        where it comes from (see conch.manifest)
    ROOT/../.ROOT.staging/           where versions are put together, outside what Triton looks at

A version comes to be in one step: it is assembled and flushed in a stage on the same file system, then renamed. Whoever
looks at ROOT, Triton in poll mode included, sees a whole version or none. A lock around numbering and renaming makes
two writers take two numbers; a stage whose process has died is swept away by the next writer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conch.errors import RepositoryError, nearest
from conch.manifest import MANIFEST_FILE, Manifest
from conch.model_config import CONFIG_FILE, ModelConfigMessage, read_config, render
from conch.switching import locks, plan, run
from conch.switching.files import VERSION, flush_tree, versions_in
from conch.switching.taker import NoServer

__all__ = ["MODEL_NAME", "PYCACHE_GUARD", "VERSION", "Repository", "Stage", "disk_error"]

MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")

# Triton writes nothing into a version folder, but Python does: `__pycache__`, which poll mode takes for a change and
# loads every version twice. A file of that name stops the writing (tritonserver 2.51).
PYCACHE_GUARD = "__pycache__"

# Stages are folders of this name: what else lies in the staging folder is not theirs to sweep away.
_STAGE = "stage-"


class Repository:
    """A folder of models that Triton serves.

    Reading needs nothing but the folder. Writing goes through `stage`.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self.staging = self.root.parent / f".{self.root.name}.staging"

    def model_names(self) -> list[str]:
        """The models, sorted: folders that hold a config.pbtxt or a version."""
        if not self.root.is_dir():
            return []
        found = [p for p in self.root.iterdir() if p.is_dir() and MODEL_NAME.fullmatch(p.name)]
        return sorted(p.name for p in found if (p / CONFIG_FILE).is_file() or versions_in(p))

    def model_path(self, name: str) -> Path:
        """The folder of a model. Raises: RepositoryError, with the nearest name."""
        path = self.root / name
        if not path.is_dir():
            close = nearest(name, self.model_names())
            raise RepositoryError(
                f"there is no model named {name}",
                where=self.root,
                got=name,
                expected=", ".join(self.model_names()) or "the repository is empty",
                fix=f"did you mean {close}?" if close else "see `conch export --help`",
            )
        return path

    def versions(self, name: str) -> list[int]:
        """The versions of a model, lowest first."""
        return versions_in(self.model_path(name))

    def latest(self, name: str) -> int:
        """The highest version of a model. Raises: RepositoryError when it has none."""
        versions = self.versions(name)
        if not versions:
            raise RepositoryError(f"model {name} has no version", where=self.root / name, fix="export one")
        return versions[-1]

    def version_path(self, name: str, version: int) -> Path:
        """The folder of a version. Raises: RepositoryError."""
        path = self.model_path(name) / str(version)
        if not path.is_dir():
            raise RepositoryError(
                f"model {name} has no version {version}", where=self.root / name, expected=self.versions(name)
            )
        return path

    def config(self, name: str) -> ModelConfigMessage:
        """The model's ModelConfig message. Raises: RepositoryError, ConfigError."""
        return read_config(self.model_path(name) / CONFIG_FILE)

    def manifest(self, name: str, version: int) -> Manifest | None:
        """Where a version comes from; None when it was made by hand. Raises: RepositoryError."""
        path = self.version_path(name, version) / MANIFEST_FILE
        return Manifest.read(path) if path.is_file() else None

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """A place to put new versions together. What is not committed is gone when the block ends.

        Raises: RepositoryError when the place cannot be made, or the disk fills up in the block.
        """
        try:
            with self._staging_locked():
                self._sweep()
                folder = Path(tempfile.mkdtemp(prefix=_STAGE, dir=self.staging))
                owner = _lock(folder)
        except OSError as error:
            raise disk_error(error, self.staging) from error
        try:
            yield Stage(self, folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_error(error, folder) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(owner)

    def _sweep(self) -> None:
        """Remove stages whose process has died: theirs are the folders that nobody holds a lock on."""
        for folder in self.staging.iterdir():
            if not folder.name.startswith(_STAGE) or not folder.is_dir():
                continue  # others keep files and folders here too
            try:
                owner = _lock(folder)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.close(owner)

    @contextmanager
    def _staging_locked(self) -> Iterator[None]:
        """Hold the staging folder, so that nobody sweeps away a stage that is just being made.

        It is not the lock of a switch: what takes long is put together while somebody else's switch runs.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.staging.mkdir(exist_ok=True)
        descriptor = _lock(self.staging, wait=True)
        try:
            yield
        finally:
            os.close(descriptor)


class Stage:
    """New versions of one or several models, not yet seen by anyone.

    ``path`` is itself a repository that Triton can serve, each model at version 1, so that what is staged can be tried.
    """

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.repository = repository
        self.path = folder / "repository"
        self.path.mkdir()
        self._models: list[str] = []

    def add_model(self, name: str, config: ModelConfigMessage) -> Path:
        """Begin a new version of a model; returns the folder to write its files into. Raises: RepositoryError.

        Call it for an ensemble's members first and for the ensemble last: that is the order in which they go live.
        """
        if not MODEL_NAME.fullmatch(name):
            raise RepositoryError(
                "that is no name for a model",
                got=name,
                expected="letters, digits, '.', '_' and '-', the first a letter or a digit",
                fix="choose another with --name",
            )
        version = self.path / name / "1"
        version.mkdir(parents=True)
        (self.path / name / CONFIG_FILE).write_text(render(config), encoding="utf-8")
        self._models.append(name)
        return version

    def model_path(self, name: str) -> Path:
        """The staged folder of a model, for files that belong beside config.pbtxt (label files)."""
        return self.path / name

    @property
    def models(self) -> tuple[str, ...]:
        """The staged models, members before the ensemble that uses them."""
        return tuple(self._models)

    def check(self) -> None:
        """Raises: RepositoryError when there is nothing to make live, or an empty version."""
        if not self._models:
            raise RepositoryError("nothing was staged", where=self.path)
        for name in self._models:
            if not any((self.path / name / "1").iterdir()):
                raise RepositoryError(f"the staged version of {name} is empty", where=self.path / name)

    def commit(self, version: int | None = None) -> int:
        """Make the staged versions live on disk, all under one number, and return it.

        The number is one above the highest that any of the models has, so a pipeline's parts carry the same one. No
        server is told. A model's new config never meets its old version, nor the other way round, whenever a server
        looks. A server in poll mode may still take the parts of a pipeline one after the other; whoever must not see
        parts of two versions publishes on the server (server.rollout). Raises: RepositoryError; all is then as it was.
        """
        self.check()
        staging = self.repository.staging
        try:
            flush_tree(self.path)
            with locks.repository(staging):
                run.recover(self.repository.root, staging, NoServer())
                journal = plan.publish(self.repository, self.path, self._models, NoServer(), version=version)
                run.Switch(journal, self.repository.root, staging, NoServer()).run(self.path, lambda: None)
        except OSError as error:
            raise disk_error(error, self.repository.root) from error
        self._models = []
        return journal.version


def _lock(folder: Path, *, wait: bool = False) -> int:
    """Lock a folder; the lock lives as long as the descriptor. Raises: BlockingIOError when we do not wait for it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def disk_error(error: OSError, where: Path) -> RepositoryError:
    """What to tell of a repository that could not be written."""
    fixes = {
        errno.ENOSPC: "free disk space, or choose another --repository",
        errno.EDQUOT: "free disk space within your quota, or choose another --repository",
        errno.EACCES: "make the folder writable, or choose another --repository",
        errno.EROFS: "the file system is read-only: choose another --repository",
    }
    return RepositoryError(
        "the repository could not be written; nothing in it was changed",
        where=error.filename or where,
        got=error.strerror,
        fix=fixes.get(error.errno or 0),
    )
