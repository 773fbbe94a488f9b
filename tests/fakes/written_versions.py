"""Repositories with versions as conch writes them: staged and committed, each with a manifest that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conch.manifest import Golden, Manifest, Parity, digest_files
from conch.model_config import ModelConfig, parse, render
from conch.repository import Repository

CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
CREATED_AT = "2026-01-02T03:04:05+00:00"
MEMBERS = ("_preprocess", "_model")


def golden(x: float, y: float) -> Golden:
    """The request x [1, 1] and its answer y [1, 1], a row of scores [1, 2] and a label."""
    scores = {"datatype": "FP32", "shape": [1, 2], "data": [y, 1 - y]}
    label = {"datatype": "BYTES", "shape": [1, 1], "data": ["high" if y > 0.5 else "low"]}
    return Golden({"x": _one(x)}, {"y": _one(y), "scores": scores, "label": label})


def _one(value: float) -> dict[str, Any]:
    return {"datatype": "FP32", "shape": [1, 1], "data": [value]}


def add_versions(
    root: Path,
    names: Sequence[str] = ("spam",),
    *,
    count: int = 1,
    config: str = CONFIG,
    files: Mapping[str, str | bytes] | None = None,
    by_hand: bool = False,
    **fields: Any,
) -> int:
    """Commit versions of models, ``count`` times; returns the last number. ``fields`` are the manifest's."""
    number = 0
    for _ in range(count):
        with Repository(root).stage() as stage:
            for name in names:
                message = parse(config)
                message.name = name
                _fill(stage.add_model(name, message), message, files or {"model.py": "pass\n"}, by_hand, fields)
            number = stage.commit()
    return number


def add_pipeline(root: Path, name: str = "digits", count: int = 1) -> int:
    """Commit versions of a pipeline NAME of NAME_preprocess and NAME_model; returns the last number."""
    number = 0
    for _ in range(count):
        with Repository(root).stage() as stage:
            for member in (name + m for m in MEMBERS):
                message = parse(CONFIG)
                message.name = member
                _fill(stage.add_model(member, message), message, {"model.py": "pass\n"}, False, {})
            ensemble = ModelConfig(name=name, platform="ensemble", max_batch_size=8)
            for member in (name + m for m in MEMBERS):
                ensemble.ensemble_scheduling.step.add(model_name=member, model_version=-1)
            _fill(stage.add_model(name, ensemble), ensemble, {}, False, {})
            number = stage.commit()
    return number


def _fill(
    folder: Path, config: Any, files: Mapping[str, str | bytes], by_hand: bool, fields: Mapping[str, Any]
) -> None:
    for file, content in files.items():
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    if by_hand:
        return
    manifest = Manifest(
        model=config.name,
        created_at=CREATED_AT,
        source={"kind": "sklearn", "estimator": "LinearRegression", "versions": {"scikit-learn": "1.9.1"}},
        files=digest_files(folder),
        config=render(config),
        settings={"precision": "fp32"},
        parity=(Parity("y", 5, 1e-7, 1e-4), Parity("label", 5, 0.0, 0.0)),
        golden=(golden(1.0, 0.25),),
    )
    dataclasses.replace(manifest, **fields).write(folder)


def add_side_model(root: Path, name: str, version: int) -> Path:
    """A canary NAME.vVERSION that holds its version itself, made from the model's latest; returns its folder."""
    repository = Repository(root)
    side = root / f"{name}.v{version}"
    config = repository.config(name)
    config.name = side.name
    latest = repository.version_path(name, repository.latest(name))
    manifest = Manifest.read(latest / "manifest.json")
    folder = side / str(version)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("raise SystemExit\n")
    dataclasses.replace(manifest, files=digest_files(folder)).write(folder)
    (side / "config.pbtxt").write_text(render(config))
    return side
