"""A version of a model beside the model: a model of its own, so that both configs can be served at once.

    NAME.vM         a canary: holds its version folder M itself, until it is published or taken down
    NAME.vM.next    during a switch only: its version folder M is a link to NAME/M

A link and not a copy: weights are large. And not hard links: a second name for a file changes the file's ctime, which
Triton takes for a change of the version (tritonserver 2.51).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, render
from conch.switching.files import VERSION, flush_tree, move_in

_SIDE = re.compile(r"^(?P<model>.+)\.v(?P<version>[1-9][0-9]*)(?P<next>\.next)?$")


@dataclass(frozen=True)
class SideModel:
    """What a side model's name says: of which model and version; ``temporary`` is one that a switch has made."""

    model: str
    version: int
    temporary: bool


def canary_name(model: str, version: int) -> str:
    """The name under which a canary is asked."""
    return f"{model}.v{version}"


def next_name(model: str, version: int) -> str:
    """The name of a member of a pipeline while the pipeline switches."""
    return f"{model}.v{version}.next"


def parse(name: str) -> SideModel | None:
    """What a model's name says, when it is a side model's. Only with a model of the first name it is one."""
    found = _SIDE.fullmatch(name)
    return SideModel(found["model"], int(found["version"]), bool(found["next"])) if found else None


def config_of(
    config: ModelConfigMessage, name: str, steps: Mapping[str, tuple[str, int]], *, keep_policy: bool = False
) -> ModelConfigMessage:
    """A model's config under another name, an ensemble's steps sent to other models.

    ``steps`` maps a member to the name and version to ask instead. A side model has one version, so it needs no policy.
    """
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.name = name
    if not keep_policy:
        copy.ClearField("version_policy")
    for step in copy.ensemble_scheduling.step:
        if step.model_name in steps:
            step.model_name, step.model_version = steps[step.model_name]
    return copy


def build(source: Path, name: str, config: ModelConfigMessage, into: Path) -> Path:
    """Put a side model together in ``into``, with what lies beside the source's config.pbtxt, without a version yet."""
    folder = into / name
    folder.mkdir(parents=True)
    for beside in sorted(source.iterdir()):
        if beside.name != CONFIG_FILE and not VERSION.fullmatch(beside.name):
            if beside.is_dir():
                shutil.copytree(beside, folder / beside.name)
            else:
                shutil.copy2(beside, folder / beside.name)
    (folder / CONFIG_FILE).write_text(render(config), encoding="utf-8")
    return folder


def link_version(folder: Path, model: str, version: int) -> None:
    """Give a side model that lies in the root, or is to lie there, the version of its model."""
    os.symlink(os.path.join("..", model, str(version)), folder / str(version), target_is_directory=True)


def move_side_in(folder: Path, root: Path) -> None:
    """Show a side model that was put together: one rename. Nothing when it is there already."""
    if not (root / folder.name).exists():
        flush_tree(folder)
        move_in(folder, root / folder.name)
