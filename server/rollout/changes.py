"""What a publish changes: config fields, tensors, sizes, against the version that serves. Reads files only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE
from conch.model_config import ModelConfigMessage, signature_of
from conch.repository import Repository
from server.repo_view.comparison import Change, changes, fields_of
from server.rollout.candidate import CandidateModel, live_config


@dataclass(frozen=True)
class ModelChanges:
    """One model of a publish.

    ``config`` are fields of config.pbtxt, ``tensors`` inputs and outputs as a person reads them. Sizes are those of
    the version folders; ``size_before_bytes`` is None for a new model.
    """

    model: str
    config_from: str
    config: tuple[Change, ...]
    tensors: tuple[Change, ...]
    size_bytes: int
    size_before_bytes: int | None = None


def of_model(model: CandidateModel, staged: Path, live: Repository, serving: int | None) -> ModelChanges:
    """What changes with one model; ``staged`` is its version folder, ``serving`` the version that serves now."""
    before = live_config(live, model.name)
    size_before = size_of(live.root / model.name / str(serving)) if serving is not None else None
    if before is None:
        return ModelChanges(model.name, model.config_from, (), (), size_of(staged), size_before)
    return ModelChanges(
        model.name,
        model.config_from,
        tuple(changes(_settings(before), _settings(model.config))),
        tuple(changes(_tensors(before), _tensors(model.config))),
        size_of(staged),
        size_before,
    )


def size_of(folder: Path) -> int:
    """The bytes of a version's files, without what is written about it."""
    own = (MANIFEST_FILE, SIGNATURE_FILE)
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name not in own)


def _settings(config: ModelConfigMessage) -> Mapping[str, str]:
    """The config's fields but for its tensors, which are told as tensors."""
    return {k: v for k, v in fields_of(config).items() if not k.startswith(("input[", "output["))}


def _tensors(config: ModelConfigMessage) -> Mapping[str, str]:
    signature = signature_of(config)
    kinds = (("input", signature.inputs), ("output", signature.outputs))
    return {f"{kind} {t.name}": t.describe(batched=signature.batched) for kind, specs in kinds for t in specs}
