"""Models whose files and config both say which version they are, and what Triton would make of them. No server.

A model's config has the parameter `k`, its version folder a file `k`: a config that meets the files of another version
shows, and so do the parts of a pipeline that belong to different versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conch.model_config import ModelConfig, ModelConfigMessage, read_config, selected_versions
from conch.repository import Repository, Stage
from conch.switching.files import versions_in

PARTS = ("p_pre", "p_model", "p_post")


def member_config(name: str, k: int) -> ModelConfigMessage:
    """A model's config of version ``k``."""
    config = ModelConfig(name=name, backend="python", max_batch_size=8)
    config.parameters["k"].string_value = str(k)
    return config


def ensemble_config(name: str, k: int, members: Sequence[str]) -> ModelConfigMessage:
    """An ensemble's, over members at their latest."""
    config = member_config(name, k)
    config.ClearField("backend")
    config.platform = "ensemble"
    for member in members:
        config.ensemble_scheduling.step.add(model_name=member, model_version=-1)
    return config


def stage_model(stage: Stage, config: ModelConfigMessage, k: int) -> None:
    """Add a model to a stage."""
    folder = stage.add_model(config.name, config)
    (folder / "k").write_text(str(k))


def stage_single(stage: Stage, k: int, config_k: int | None = None) -> None:
    """Add the model `m`; with ``config_k`` its config does not change with the version."""
    stage_model(stage, member_config("m", k if config_k is None else config_k), k)


def stage_pipeline(stage: Stage, k: int, members: Sequence[str] = PARTS, config_k: int | None = None) -> None:
    """Add the pipeline `p`, the ensemble last."""
    shown = k if config_k is None else config_k
    for member in members:
        stage_model(stage, member_config(member, shown), k)
    stage_model(stage, ensemble_config("p", shown, members), k)


def would_serve(root: Path, name: str, *, configs: bool = True) -> set[str]:
    """The k's of all that would take part in an unversioned request to a server started now: more than one is a mix.

    Of files and of configs; without ``configs`` of files alone.
    """
    repository = Repository(root)
    config = repository.config(name)
    assert config.name == name
    return _of_version(repository, name, max(selected_versions(config, repository.versions(name))), configs)


def _of_version(repository: Repository, name: str, version: int, configs: bool) -> set[str]:
    config = repository.config(name)
    found = {(repository.root / name / str(version) / "k").read_text()}
    if configs:
        found.add(config.parameters["k"].string_value)
    for step in config.ensemble_scheduling.step:
        loadable = selected_versions(
            read_config(repository.root / step.model_name / "config.pbtxt"),
            versions_in(repository.root / step.model_name),
        )
        wanted = max(loadable) if step.model_version == -1 else step.model_version
        assert wanted in loadable, f"{name} asks for {step.model_name} {wanted}, which is not served"
        found |= _of_version(repository, step.model_name, wanted, configs)
    return found


def tree(root: Path) -> dict[str, str]:
    """Every file of a repository, but conch.json; what is no text (others' weights) comes as what no text has."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and p.name != "conch.json")
    return {p.relative_to(root).as_posix(): p.read_text(errors="surrogateescape") for p in files}
