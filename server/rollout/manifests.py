"""The manifests of a candidate: its files are held to them before, and they are completed before it goes live."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from conch import __version__, signing
from conch.errors import ConchError, RepositoryError
from conch.lint.onnx_header import read_header
from conch.manifest import SIGNATURE_FILE, Manifest, changed_files, digest_files
from conch.model_config import ModelConfigMessage, parse, render
from conch.repository import PYCACHE_GUARD, Stage
from server.rollout.candidate import Candidate, CandidateModel
from server.rollout.trial import Asked


def copy(candidate: Candidate, stage: Stage) -> None:
    """Copy the candidate into a stage. Raises: OSError.

    Copies and no hard links: what the owner of the source writes into its files later must not reach what serves.
    """
    for model in candidate.models:
        folder = stage.add_model(model.name, model.config)
        for name, source in model.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        for name, source in model.beside.items():
            shutil.copyfile(source, stage.model_path(model.name) / name)
        if model.manifest is None and model.config.backend == "python":
            # Without it Python writes bytecode here, and poll mode loads every version twice.
            (folder / PYCACHE_GUARD).touch()
        for path in model.came_with:
            shutil.copyfile(path, folder / path.name)


def check(candidate: Candidate, stage: Stage, public_key: Path | None) -> None:
    """Hold the staged files to the manifests that came with them, and those to a key. Raises: RepositoryError."""
    for model in candidate.models:
        folder = stage.path / model.name / "1"
        if public_key is not None:
            signing.verify(folder, public_key)
        if model.manifest is None:
            continue
        found = changed_files(folder, model.manifest)
        if found:
            raise RepositoryError(
                f"the files of {model.name} are not those of its manifest",
                where=candidate.source,
                got=str(found),
                expected="the files that were checked when the manifest was written",
                fix="take the whole folder again from where it was made; if the change is meant, export it anew",
            )


def write(candidate: Candidate, stage: Stage, asked: Mapping[str, Asked], private_key: Path | None) -> tuple[str, ...]:
    """Write the manifests of the staged versions, and sign them; returns what is to be told.

    One that came with its version stays as it is, byte for byte, unless it names another model or config.
    """
    told: list[str] = []
    for model in candidate.models:
        folder = stage.path / model.name / "1"
        signature = folder / SIGNATURE_FILE
        if model.manifest is None:
            _new(model, candidate.source, folder, asked.get(model.name)).write(folder)
        elif model.manifest.model != model.name or not _same_config(model.manifest, model.config):
            dataclasses.replace(model.manifest, model=model.name, config=render(model.config)).write(folder)
            if signature.is_file() and private_key is None:
                told.append(f"{model.name} is no longer signed: its name or config is another than what was signed")
            signature.unlink(missing_ok=True)
        if private_key is not None:
            signing.sign(folder, private_key)
    return tuple(told)


def _new(model: CandidateModel, source: Path, folder: Path, asked: Asked | None) -> Manifest:
    opset = ir_version = None
    onnx = next(iter(sorted(folder.glob("*.onnx"))), None)
    if onnx is not None:
        try:
            header = read_header(onnx)
            opset, ir_version = header.opset(), header.ir_version
        except ConchError:
            pass  # the trial decides whether it loads
    return Manifest(
        model=model.name,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source={"kind": "published", "path": str(source), "versions": {"conch": __version__}},
        files=digest_files(folder),
        config=render(model.config),
        golden=asked.golden() if asked is not None else (),
        opset=opset,
        ir_version=ir_version,
    )


def _same_config(manifest: Manifest, config: ModelConfigMessage) -> bool:
    """Whether the manifest's config is this one, but for the version policy, which is the repository's affair."""
    try:
        known = parse(manifest.config)
    except ConchError:
        return False
    other = type(config)()
    other.CopyFrom(config)
    for message in (known, other):
        message.ClearField("version_policy")
    return bool(known == other)
