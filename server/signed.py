"""Serve only what is signed: every version that the server may load is verified before it starts.

Triton itself knows no signatures. In poll control it loads what appears before anyone can look at it, so the two do not
go together. In explicit control what is loaded later goes through `conch repo publish --verify-key`; close the load
calls to everyone else with --restrict model-repository:HEADER=VALUE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conch import signing
from conch.errors import ServerError
from conch.model_config import selected_versions
from conch.repository import Repository
from server.options import ALL_MODELS


def verify_all(repositories: Sequence[Path], public_key: Path, control: str, load_models: Sequence[str]) -> int:
    """Verify what a server with these options would load; returns how many versions that is.

    Raises: ServerError in poll control; RepositoryError for the first version that is not signed or was changed.
    """
    if control == "poll":
        raise ServerError(
            "--verify-key cannot be kept in poll control",
            got="--control poll: Triton loads what appears by itself, signed or not",
            expected="--control none or explicit",
            fix="serve with --control explicit, and publish with `conch repo publish --verify-key`",
        )
    count = 0
    for root in repositories:
        for folder in _versions(Repository(root), control, load_models):
            signing.verify(folder, public_key)
            count += 1
    return count


def _versions(repository: Repository, control: str, load_models: Sequence[str]) -> Iterator[Path]:
    """The version folders that would be loaded at the start."""
    names = repository.model_names()
    if control == "explicit" and ALL_MODELS not in load_models:
        names = [name for name in _with_members(repository, load_models) if name in names]
    for name in names:
        config = repository.config(name)
        for version in selected_versions(config, repository.versions(name)):
            yield repository.version_path(name, version)


def _with_members(repository: Repository, names: Sequence[str]) -> list[str]:
    """The models, and the members that Triton loads with an ensemble."""
    found: list[str] = []
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in found or not (repository.root / name).is_dir():
            continue
        found.append(name)
        waiting += [step.model_name for step in repository.config(name).ensemble_scheduling.step]
    return found
