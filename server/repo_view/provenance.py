"""`conch repo sign` and `verify`: versions against their manifests, and these against a signer's key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conch import signing
from conch.errors import ConchError, RepositoryError
from conch.model_config import parse
from conch.switching.policy import same_but_policy
from server.repo_view.contents import ModelView, RepositoryView, VersionView

FINE = "ok"


@dataclass(frozen=True)
class Check:
    """A version's files and signature: "ok", or what is wrong or missing. ``ok`` says whether that is a failure."""

    model: str
    version: int
    files: str
    signature: str
    ok: bool


def sign(view: RepositoryView, name: str, version: int | None, key: Path) -> tuple[Path, ...]:
    """Sign a version of a model, or of all parts of a pipeline; returns the signatures. Raises: RepositoryError.

    Without a number it is the version that serves. All parts are checked before the first is signed.
    """
    model = view.model(name)
    main = model.main_version()
    if main is None:
        raise RepositoryError(f"model {name} has no version", where=model.path, fix="export one")
    number = model.version(version).version if version else main.version
    folders = [v.path for part in view.parts(name) for v in part.versions if v.version == number]
    for folder in folders:
        signing.check_files(folder)
    return tuple(signing.sign(folder, key) for folder in folders)


def check(view: RepositoryView, name: str | None, version: int | None, key: Path | None) -> tuple[Check, ...]:
    """Every version of a model and its parts, or of all models; of one number if asked. Raises: RepositoryError."""
    if key is not None:
        signing.read_public_key(key)  # raises once, not for every version
    models = view.parts(view.model(name).name) if name else tuple(view.models.values())
    if name and version:
        view.model(name).version(version)
    return tuple(
        _check(model.name, found, key)
        for model in models
        for found in model.versions
        if version in (None, found.version)
    )


def _check(name: str, version: VersionView, key: Path | None) -> Check:
    by_hand = version.manifest is None and not version.problem
    files = "not known: made by hand" if by_hand else _problem(lambda: signing.check_files(version.path))
    if key is None:
        return Check(
            name, version.version, files, "not checked" if version.signed else "none", by_hand or files == FINE
        )
    signature = _problem(lambda: signing.verify(version.path, key)) if version.signed else "not signed"
    return Check(name, version.version, files, signature, files == FINE and signature == FINE)


def _problem(examine: Callable[[], object]) -> str:
    try:
        examine()
    except ConchError as error:
        return f"{error.what}: {error.got}" if error.got else error.what
    return FINE


def other_configs(models: tuple[ModelView, ...]) -> Iterator[str]:
    """Models served with another config than the one that their version was made, and signed, with: a sentence each."""
    for model in models:
        version = model.main_version()
        if version is None or version.manifest is None or model.config is None:
            continue
        try:
            same = same_but_policy(model.config, parse(version.manifest.config))
        except ConchError:
            same = False
        if not same:
            yield f"{model.name}: config.pbtxt is not the one that version {version.version} was made for"
