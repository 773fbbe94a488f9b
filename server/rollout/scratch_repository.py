"""The repository that a scratch server tries a candidate in: the live one as it will be, as far as it matters.

It holds the candidate's models under the number that they are to have, the ensembles that use them, and whatever other
models those need, from the live repository. For a comparison, what serves now can stand beside it under other names.

Nothing is copied, and nothing is hard-linked: a link changes the file's ctime, which Triton in poll mode takes for a
change and loads the version again (tritonserver 2.51). Symbolic links leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conch.errors import ConchError, RepositoryError
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, render, selected_versions
from conch.repository import PYCACHE_GUARD, Repository

# The names of what serves now, beside the candidate: a dot is not in the names that export gives.
BEFORE = ".before"


@dataclass(frozen=True)
class Scratch:
    """The laid-out repository.

    ``versions`` is the version of each model that is to be asked; ``users`` are the ensembles that use the candidate
    and are no part of it; ``before`` maps the candidate's public model to its stand-in for the version that serves, if
    one was asked for; ``notes`` are what differs from how the models will be served.
    """

    root: Path
    configs: Mapping[str, ModelConfigMessage]
    versions: Mapping[str, int]
    users: tuple[str, ...] = ()
    before: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def lay_out(
    root: Path,
    staged: Mapping[str, Path],
    configs: Mapping[str, ModelConfigMessage],
    live: Repository,
    number: int,
    *,
    also: Sequence[str] = (),
    before: str | None = None,
    gpu: bool = True,
) -> Scratch:
    """Put the scratch repository together.

    ``staged`` and ``configs`` are the candidate's models: staged model folders, whose version is folder 1, and configs.
    ``also`` are live models that the candidate calls by itself. ``before`` is the public model whose serving version is
    to stand beside it. Raises: RepositoryError.
    """
    present = live_configs(live)
    users = users_of(configs, present)
    needed = _with_members([*users, *also, *_steps(configs.values())], configs, present)
    root.mkdir()
    notes: list[str] = []
    versions: dict[str, int] = {}
    shown: dict[str, ModelConfigMessage] = {}
    for name, config in configs.items():
        there = _versions(live, name)
        chosen = selected_versions(config, [*there, number])
        if number not in chosen:
            raise RepositoryError(
                f"the config would not serve version {number} of {name}",
                where=CONFIG_FILE,
                got=f"a version_policy that chooses {', '.join(map(str, chosen)) or 'nothing'}",
                fix="leave version_policy out of the config: the latest is served",
            )
        folders = {v: live.root / name / str(v) for v in chosen if v != number}
        folders[number] = staged[name] / "1"
        shown[name] = _write(root, name, config, folders, [live.root / name, staged[name]], gpu, notes)
        versions[name] = number
    for name in needed:
        versions[name] = _serving(live, name, present[name])
        folders = {v: live.root / name / str(v) for v in selected_versions(present[name], _versions(live, name))}
        shown[name] = _write(root, name, present[name], folders, [live.root / name], gpu, notes)
    standing = {}
    if before is not None and before in present and _versions(live, before):
        for name in [*_with_members([before], {}, present)]:
            version = _serving(live, name, present[name])
            config = _as_before(present[name], present, version)
            folders = {version: live.root / name / str(version)}
            shown[config.name] = _write(root, config.name, config, folders, [live.root / name], gpu, [])
            versions[config.name] = version
        standing[before] = before + BEFORE
    return Scratch(root, shown, versions, tuple(users), standing, tuple(dict.fromkeys(notes)))


def live_configs(live: Repository) -> dict[str, ModelConfigMessage]:
    """The configs of the live models; those that cannot be read are not served either, and are left out."""
    found = {}
    for name in live.model_names():
        try:
            found[name] = live.config(name)
        except ConchError:
            continue
    return found


def users_of(
    names: Mapping[str, ModelConfigMessage] | Sequence[str], present: Mapping[str, ModelConfigMessage]
) -> list[str]:
    """The ensembles that use any of the models, directly or through others, and are none of them; sorted."""
    reached = set(names)
    while True:
        more = {n for n, config in present.items() if n not in reached and reached & set(_steps([config]))}
        if not more:
            return sorted(reached - set(names))
        reached |= more


def serving_versions(live: Repository) -> dict[str, int]:
    """The version of each live model that answers unversioned requests, by its config; not all models have one."""
    chosen = {n: selected_versions(config, _versions(live, n)) for n, config in live_configs(live).items()}
    return {name: versions[-1] for name, versions in chosen.items() if versions}


def _steps(configs: object) -> list[str]:
    return [step.model_name for config in configs for step in config.ensemble_scheduling.step]  # type: ignore[attr-defined]


def _with_members(
    names: Sequence[str], own: Mapping[str, ModelConfigMessage], present: Mapping[str, ModelConfigMessage]
) -> list[str]:
    """The live models of these names and all their members, members first; the candidate's own are left out."""
    found: list[str] = []
    for name in names:
        if name in own or name in found:
            continue
        if name not in present:
            raise RepositoryError(
                f"there is no model {name}, which the version needs",
                expected=", ".join(present) or "the repository is empty",
                fix="publish it first, or the whole pipeline at once: its repository or stage as SOURCE",
            )
        found += [m for m in _with_members(_steps([present[name]]), own, present) if m not in found]
        found.append(name)
    return found


def _versions(live: Repository, name: str) -> list[int]:
    return live.versions(name) if (live.root / name).is_dir() else []


def _serving(live: Repository, name: str, config: ModelConfigMessage) -> int:
    chosen = selected_versions(config, _versions(live, name))
    if not chosen:
        raise RepositoryError(f"model {name} serves no version", where=live.root / name, fix="publish one")
    return chosen[-1]


def _as_before(
    config: ModelConfigMessage, present: Mapping[str, ModelConfigMessage], version: int
) -> ModelConfigMessage:
    """The config of what serves now, under its other name."""
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.name = config.name + BEFORE
    copy.ClearField("version_policy")
    copy.version_policy.specific.versions.append(version)
    for step in copy.ensemble_scheduling.step:
        if step.model_name in present:
            step.model_name, step.model_version = step.model_name + BEFORE, -1
    return copy


def _write(
    root: Path,
    name: str,
    config: ModelConfigMessage,
    versions: Mapping[int, Path],
    beside: Sequence[Path],
    gpu: bool,
    notes: list[str],
) -> ModelConfigMessage:
    folder = root / name
    folder.mkdir()
    for place in beside:  # the candidate's label files replace those that are there
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file() and path.name != CONFIG_FILE:
                (folder / path.name).unlink(missing_ok=True)
                (folder / path.name).symlink_to(path.absolute())
    shown = adapted(config, gpu, notes)
    (folder / CONFIG_FILE).write_text(render(shown), encoding="utf-8")
    for number, source in versions.items():
        show_version(source.absolute(), folder / str(number))
    return shown


def adapted(config: ModelConfigMessage, gpu: bool, notes: list[str]) -> ModelConfigMessage:
    """The config for a scratch server, which has no response cache, and perhaps no GPU."""
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.ClearField("response_cache")  # answers must come from the model
    kinds = [group for group in copy.instance_group if group.kind == ModelConfig().instance_group.add().KIND_GPU]
    if kinds and not gpu:
        for group in kinds:
            group.kind = group.KIND_CPU
            del group.gpus[:]
        notes.append(f"{config.name} was tried on the CPU: this machine has no GPU")
    return copy


def show_version(source: Path, target: Path) -> None:
    """Show a version folder in the scratch repository, so that nothing is written into it."""
    python = (source / "model.py").is_file() and not (source / PYCACHE_GUARD).is_file()
    if not python:
        # Whole: ONNX Runtime wants weights in other files to lie in the same real folder.
        target.symlink_to(source)
        return
    target.mkdir()
    for path in source.iterdir():
        if path.name != PYCACHE_GUARD:  # bytecode, which Python writes anew
            (target / path.name).symlink_to(path)
    (target / PYCACHE_GUARD).touch()
