"""What SOURCE is: the models that are to be published, with their files and the configs that they are served with.

    a version folder          files of one version, with or without manifest.json
    a model folder            config.pbtxt and versions, of which the latest is taken; an ensemble brings the members
                              that lie beside it
    a repository              one model or one pipeline, as an export's stage has it
    a bare ONNX file          with the files beside it that hold its weights

Reads only: nothing is copied and nothing is judged but whether it can be told what is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conch import ledger
from conch.errors import RepositoryError
from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, parse, read_config
from conch.repository import MODEL_NAME, PYCACHE_GUARD, VERSION, Repository
from conch.switching.policy import with_policy_text
from server.rollout import onnx_config

# Files by which a training job says that a folder is whole; they are no part of the version.
MARKERS = ("_SUCCESS", "_DONE", ".complete")


@dataclass(frozen=True)
class CandidateModel:
    """One model of the candidate: ``files`` of its version folder and those ``beside`` config.pbtxt, by path there.

    ``config_from`` says where the config comes from; ``came_with`` are the manifest's own file and its signature.
    """

    name: str
    config: ModelConfigMessage
    config_from: str
    files: Mapping[str, Path]
    beside: Mapping[str, Path] = field(default_factory=dict)
    manifest: Manifest | None = None
    came_with: tuple[Path, ...] = ()

    @property
    def is_ensemble(self) -> bool:
        """Whether it is put together of others."""
        return bool(self.config.WhichOneof("scheduling_choice") == "ensemble_scheduling")


@dataclass(frozen=True)
class Candidate:
    """The models to publish under one number: an ensemble's members first, the public model last."""

    source: Path
    models: tuple[CandidateModel, ...]

    @property
    def name(self) -> str:
        """The public model's name."""
        return self.models[-1].name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all its models."""
        return tuple(model.name for model in self.models)


@dataclass(frozen=True)
class ConfigChoice:
    """Which config a single model gets: ``file`` before all else; ``keep_live`` prefers the live model's."""

    file: Path | None = None
    keep_live: bool = False


def find(
    source: Path,
    live: Repository,
    as_name: str | None = None,
    choice: ConfigChoice = ConfigChoice(),
) -> Candidate:
    """What a source holds, under the names that it goes live with. Raises: RepositoryError, ConfigError."""
    source = source.absolute()
    if as_name is not None and not MODEL_NAME.fullmatch(as_name):
        expected = "letters, digits, '.', '_' and '-', the first a letter or a digit"
        raise RepositoryError("that is no name for a model", got=as_name, expected=expected, fix="choose another --as")
    if source.is_file():
        return Candidate(source, (_bare_file(source, live, as_name, choice),))
    if not source.is_dir():
        raise RepositoryError("there is nothing to publish", where=source, got="no such file or folder")
    if (source / MANIFEST_FILE).is_file():
        return Candidate(source, (_version(source, live, as_name, choice),))
    if _is_model(source):
        return _from_models(
            source, source.parent, [*_members(source.parent, source.name), source.name], live, as_name, choice
        )
    inside = sorted(p.name for p in source.iterdir() if p.is_dir() and _is_model(p))
    if inside:
        return _from_models(source, source, _one_public(source, inside), live, as_name, choice)
    return Candidate(source, (_version(source, live, as_name, choice),))


def live_config(live: Repository, name: str) -> ModelConfigMessage | None:
    """The live model's config in its normal shape, a held version's pin taken out; None when there is none."""
    path = live.root / name / CONFIG_FILE
    if not path.is_file():
        return None
    config = read_config(path)
    held = ledger.read(live.root).held.get(name)
    if held is not None:
        return with_policy_text(config, held.policy)
    return config


def _bare_file(source: Path, live: Repository, as_name: str | None, choice: ConfigChoice) -> CandidateModel:
    if source.suffix != ".onnx":
        raise RepositoryError(
            "that file is nothing that can be published",
            where=source,
            expected="an ONNX file, a version folder, a model folder, or a repository",
            fix="other formats: put the file into a folder under the name that the backend wants, and publish that",
        )
    name = as_name or source.stem
    if as_name is None and (name == "model" or not MODEL_NAME.fullmatch(name)) and not (live.root / name).is_dir():
        raise RepositoryError("the file's name is no name for its model", where=source, fix="give one: --as NAME")
    present = live_config(live, name)
    if choice.file is not None:
        config, config_from = read_config(choice.file), str(choice.file)
    else:
        config, config_from = onnx_config.config_for(name, source, present)
    file_name = config.default_model_filename or "model.onnx"
    files = {file_name: source, **onnx_config.external_files(source)}
    return CandidateModel(name, _named(config, name, present), config_from, files)


def _version(source: Path, live: Repository, as_name: str | None, choice: ConfigChoice) -> CandidateModel:
    manifest = Manifest.read(source / MANIFEST_FILE) if (source / MANIFEST_FILE).is_file() else None
    files = dict(_files(source))
    if not files and manifest is None:
        raise RepositoryError("the folder is empty", where=source, expected="the files of a version")
    known_as = manifest.model if manifest is not None else _name_by_place(source, live)
    name = as_name or known_as
    if name is None:
        raise RepositoryError("nothing tells the model's name", where=source, fix="give it: --as NAME")
    present = live_config(live, name)
    config, config_from = _config(source, name, manifest, present, choice)
    return CandidateModel(name, _named(config, name, present), config_from, files, {}, manifest, _came_with(source))


def _name_by_place(source: Path, live: Repository) -> str | None:
    """The model's name by the folder that a version lies in, when that is a model's."""
    parent = source.parent
    is_version = VERSION.fullmatch(source.name) is not None
    is_model = is_version and ((parent / CONFIG_FILE).is_file() or (live.root / parent.name).is_dir())
    return parent.name if is_model else None


def _config(
    source: Path,
    name: str,
    manifest: Manifest | None,
    present: ModelConfigMessage | None,
    choice: ConfigChoice,
) -> tuple[ModelConfigMessage, str]:
    """The config of a version folder, and where it comes from."""
    if choice.file is not None:
        return read_config(choice.file), str(choice.file)
    if manifest is not None and not (choice.keep_live and present is not None):
        return parse(manifest.config, where=source / MANIFEST_FILE), "its manifest"
    onnx = source / "model.onnx"
    if onnx.is_file() and manifest is None:
        return onnx_config.config_for(name, onnx, present)
    if present is not None:
        return present, "the live model's config"
    if (source.parent / CONFIG_FILE).is_file():
        return read_config(source.parent / CONFIG_FILE), "the config.pbtxt beside it"
    raise RepositoryError(
        f"nothing tells how {name} is served",
        where=source,
        expected="a manifest.json in it, a live model of that name, or an ONNX file",
        fix="give its config.pbtxt: --config FILE",
    )


def _from_models(
    source: Path, root: Path, names: list[str], live: Repository, as_name: str | None, choice: ConfigChoice
) -> Candidate:
    """The models of a folder of models, members first, renamed as ``as_name`` says."""
    public = names[-1]
    renamed = {name: _renamed(name, public, as_name, source) for name in names}
    if len(names) > 1 and choice.file is not None:
        raise RepositoryError("--config is for a single model", where=source, got=", ".join(names))
    latest = _latest(root / public)
    models = []
    for name in names:
        version = latest if (root / name / str(latest)).is_dir() else _latest(root / name)
        models.append(_of_model_folder(root / name, version, renamed, live, choice))
    return Candidate(source, tuple(models))


def _of_model_folder(
    folder: Path, version: int, renamed: Mapping[str, str], live: Repository, choice: ConfigChoice
) -> CandidateModel:
    name = renamed[folder.name]
    path = folder / str(version)
    manifest = Manifest.read(path / MANIFEST_FILE) if (path / MANIFEST_FILE).is_file() else None
    present = live_config(live, name)
    if (folder / CONFIG_FILE).is_file() and choice.file is None and not (choice.keep_live and present is not None):
        config, config_from = read_config(folder / CONFIG_FILE), "its config.pbtxt"
    else:
        config, config_from = _config(path, name, manifest, present, choice)
    beside = {p.name: p for p in sorted(folder.iterdir()) if p.is_file() and p.name != CONFIG_FILE and p.name[0] != "."}
    # A specific version is named by its number in the source, which means nothing here.
    own = ModelConfig()
    own.CopyFrom(config)
    if own.version_policy.WhichOneof("policy_choice") == "specific" and choice.file is None:
        own.ClearField("version_policy")
    for step in own.ensemble_scheduling.step:
        if step.model_name in renamed:
            step.model_name, step.model_version = renamed[step.model_name], -1
    return CandidateModel(
        name, _named(own, name, present), config_from, dict(_files(path)), beside, manifest, _came_with(path)
    )


def _named(config: ModelConfigMessage, name: str, present: ModelConfigMessage | None) -> ModelConfigMessage:
    """The config under a name, with the live model's version policy when it has none of its own."""
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.name = name
    if present is not None and present.HasField("version_policy") and not copy.HasField("version_policy"):
        copy.version_policy.CopyFrom(present.version_policy)
    return copy


def _renamed(name: str, public: str, as_name: str | None, source: Path) -> str:
    if as_name is None or as_name == public:
        return name
    if name == public:
        return as_name
    if name.startswith(f"{public}_"):
        return as_name + name[len(public) :]
    raise RepositoryError(
        f"member {name} has a name of its own, so the pipeline cannot be renamed",
        where=source,
        expected=f"{public}_... for each member",
        fix="publish it without --as",
    )


def _is_model(folder: Path) -> bool:
    if (folder / CONFIG_FILE).is_file():
        return True
    return any(VERSION.fullmatch(p.name) and p.is_dir() for p in folder.iterdir())


def _latest(folder: Path) -> int:
    versions = [int(p.name) for p in folder.iterdir() if VERSION.fullmatch(p.name) and p.is_dir()]
    if not versions:
        raise RepositoryError(f"model {folder.name} has no version", where=folder, expected="a folder named 1")
    return max(versions)


def _members(root: Path, name: str) -> list[str]:
    """The members of an ensemble that lie in the same folder, theirs before them; none for another model."""
    found: list[str] = []
    for member in _steps(root / name):
        if (root / member).is_dir() and member not in found and member != name:
            found += [m for m in (*_members(root, member), member) if m not in found]
    return found


def _steps(folder: Path) -> list[str]:
    path = folder / CONFIG_FILE
    return [step.model_name for step in read_config(path).ensemble_scheduling.step] if path.is_file() else []


def _one_public(source: Path, names: list[str]) -> list[str]:
    """All models of a repository that holds one thing, members first. Raises: RepositoryError when it holds several."""
    used = {step for name in names for step in _steps(source / name)}
    public = [name for name in names if name not in used]
    if len(public) != 1:
        raise RepositoryError(
            "the folder holds several models that are not one pipeline",
            where=source,
            got=", ".join(public or names),
            expected="one model, or one ensemble and its members",
            fix=f"publish them one by one: {source / (public or names)[0]}",
        )
    return [*_members(source, public[0]), public[0]]


def _came_with(folder: Path) -> tuple[Path, ...]:
    return tuple(path for name in (MANIFEST_FILE, SIGNATURE_FILE) if (path := folder / name).is_file())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a version by their path in it, links followed; no bytecode, no markers, no manifest.

    Raises: RepositoryError for a link to nothing.
    """
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if f != PYCACHE_GUARD)
        for name in sorted(names):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            left_out = (MANIFEST_FILE, SIGNATURE_FILE, *MARKERS)
            if relative in left_out or name.endswith(".pyc"):
                continue
            if not path.is_file():
                raise RepositoryError(
                    "a file of the version is not there",
                    where=path,
                    got="a link to nothing" if path.is_symlink() else "no regular file",
                    expected="a file, or a link to one",
                )
            yield relative, path
