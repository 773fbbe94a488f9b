"""What of a model may be changed, read from the repository: its config, its code, who uses it, what it was made for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conch.errors import ConchError, RepositoryError
from conch.manifest import Manifest
from conch.model_config import ModelConfig, ModelConfigMessage, parse, selected_versions
from conch.repository import Repository
from perf.tune.settings import ModelTuning, Tuning, read_tuning

_THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
# Which weights a version was made of, and what of its source says only how and with what.
_IDENTITY = {"sha256", "weights_sha256"}
_NOT_ORIGIN = {"versions", "precision", "path", "torch", "transformers"}
_PADDING = "pad_to_multiple_of"
_KIND_GPU = ModelConfig().instance_group.add().KIND_GPU


@dataclass(frozen=True)
class Tunable:
    """One model, and what of it may be turned.

    ``thread_parameter`` and ``pad_parameter`` are the names of its parameters, "" where it has none. ``smallest_batch``
    is what max_batch_size must not fall below. ``batches``: requests can be merged. ``takes_instances``: their number
    is one number. ``has_graph``: it runs the network, and is no Python around it. ``fewest_instances`` is 2 where the
    queue has a limit: with one instance such a batcher may sleep beside work that waits (release 24.10).
    """

    name: str
    start: ModelTuning
    thread_parameter: str = ""
    pad_parameter: str = ""
    smallest_batch: int = 0
    batches: bool = False
    takes_instances: bool = True
    has_graph: bool = False
    fewest_instances: int = 1


@dataclass(frozen=True)
class Subject:
    """What is tuned: a model, or an ensemble with its members, in the version that serves.

    ``configs`` are all models of it, members first, the public one last, as they serve now; ``tunables`` those that
    can be turned. ``versions`` is the one of each that serves. ``variants`` are versions of the same source in another
    precision, with their configs, by number; ``precisions`` names those, and the one that serves.
    """

    name: str
    configs: Mapping[str, ModelConfigMessage]
    versions: Mapping[str, int]
    tunables: tuple[Tunable, ...]
    variants: Mapping[int, Mapping[str, ModelConfigMessage]] = field(default_factory=dict)
    precisions: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The version of the public model that serves."""
        return self.versions[self.name]

    @property
    def start(self) -> Tuning:
        """The settings as they are."""
        return Tuning(tuple((t.name, t.start) for t in self.tunables), self.version)

    def base(self, version: int) -> Mapping[str, ModelConfigMessage]:
        """The configs of a variant before it is tuned."""
        return self.configs if version == self.version else self.variants[version]

    def number(self, model: str, version: int) -> int:
        """The version of a member that belongs to a variant of the public model."""
        return self.versions[model] if version == self.version else version


def look(repository: Repository, name: str) -> Subject:
    """What of a model can be tuned. Raises: RepositoryError, ConfigError."""
    configs: dict[str, ModelConfigMessage] = {}
    _collect(repository, name, configs)
    versions = {model: _serving(repository, model, config) for model, config in configs.items()}
    manifests = {model: _manifest(repository, model, versions[model]) for model in configs}
    needed = _needed_batches(repository)
    notes: list[str] = []
    tunables = []
    for model, config in configs.items():
        if config.HasField("ensemble_scheduling"):
            continue
        floor = needed.get(model, 0) if model != name else _public_batch(config, manifests[model])
        folder = repository.version_path(model, versions[model])
        tunables.append(_tunable(config, folder, max(floor, _golden_batch(manifests[model])), notes))
    notes += _others(repository, name, configs[name], versions[name])
    variants = _variants(repository, name, configs, versions)
    precisions = {v: _precision(repository, configs, v) for v in (*variants, versions[name])}
    return Subject(name, configs, versions, tuple(tunables), variants, precisions, tuple(notes))


def _collect(repository: Repository, name: str, into: dict[str, ModelConfigMessage]) -> None:
    config = repository.config(name)
    for model in dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step):
        if model not in into:
            _collect(repository, model, into)
    if config.WhichOneof("scheduling_choice") == "sequence_batching" or config.model_transaction_policy.decoupled:
        raise RepositoryError(
            f"{name} cannot be tuned: a request of it is not one question and one answer",
            where=repository.root / name,
            got="sequence_batching" if config.HasField("sequence_batching") else "decoupled responses",
            fix="tune a model that answers each request once",
        )
    into[name] = config


def _serving(repository: Repository, name: str, config: ModelConfigMessage) -> int:
    chosen = selected_versions(config, repository.versions(name))
    if not chosen:
        raise RepositoryError(f"model {name} serves no version", where=repository.root / name, fix="export one")
    return chosen[-1]


def _manifest(repository: Repository, name: str, version: int) -> Manifest | None:
    try:
        return repository.manifest(name, version)
    except ConchError:
        return None


def _needed_batches(repository: Repository) -> dict[str, int]:
    """What every ensemble of the repository may send to each of its members."""
    needed: dict[str, int] = {}
    for name in repository.model_names():
        try:
            config = repository.config(name)
        except ConchError:
            continue
        for step in config.ensemble_scheduling.step:
            needed[step.model_name] = max(needed.get(step.model_name, 0), config.max_batch_size)
    return needed


def _public_batch(config: ModelConfigMessage, manifest: Manifest | None) -> int:
    """What clients may send: a model that takes less than it was exported with refuses their requests."""
    exported = manifest.settings.get("max_batch_size") if manifest is not None else None
    return min(exported, config.max_batch_size) if isinstance(exported, int) else int(config.max_batch_size)


def _golden_batch(manifest: Manifest | None) -> int:
    goldens = manifest.golden if manifest is not None else ()
    shapes = [tensor["shape"] for golden in goldens for tensor in golden.inputs.values()]
    return max((shape[0] for shape in shapes if shape), default=0)


def _tunable(config: ModelConfigMessage, folder: Path, floor: int, notes: list[str]) -> Tunable:
    parts = _parts(folder)
    threads = _THREADS.get(config.backend or "", "")
    if config.platform.startswith("onnxruntime"):
        threads = _THREADS["onnxruntime"]
    if "onnx_graph" in parts:
        threads = _parameter(config, parts["onnx_graph"], _THREADS["onnxruntime"])
    padding = _parameter(config, parts["text_tokenizer"], _PADDING) if "text_tokenizer" in parts else ""
    groups = config.instance_group
    if len(groups) > 1:
        notes.append(f"{config.name} has {len(groups)} instance groups: their counts are left as they are")
    if any(group.kind == _KIND_GPU for group in groups):
        notes.append(f"{config.name} asks for a GPU: its instances are left as they are")
    return Tunable(
        name=config.name,
        start=read_tuning(config, threads, padding),
        thread_parameter=threads,
        pad_parameter=padding,
        smallest_batch=min(floor, config.max_batch_size) if floor else config.max_batch_size,
        batches=config.max_batch_size > 1,
        takes_instances=len(groups) < 2 and not any(group.kind == _KIND_GPU for group in groups),
        has_graph=bool(threads) or not parts,
        fewest_instances=2 if config.dynamic_batching.default_queue_policy.max_queue_size else 1,
    )


def _parts(folder: Path) -> dict[str, str]:
    """Which of our Python parts a version's code is made of, and their roles: all of a whole pipeline's, or one."""
    plan = folder / "pipeline.json"
    if plan.is_file():
        try:
            return {step["part"]: step["role"] for step in json.loads(plan.read_text(encoding="utf-8"))["steps"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    if (folder / "model.py").is_file() and (folder / "text_encoding.py").is_file():
        return {"text_tokenizer": ""}
    return {path.name.removesuffix("_part.py"): "" for path in folder.glob("*_part.py")}


def _parameter(config: ModelConfigMessage, role: str, name: str) -> str:
    """What a part's parameter is called: with its role in front where the config has it so."""
    return f"{role}.{name}" if role and f"{role}.{name}" in config.parameters else name


def _variants(
    repository: Repository, name: str, configs: Mapping[str, ModelConfigMessage], versions: Mapping[str, int]
) -> dict[int, dict[str, ModelConfigMessage]]:
    """Versions of the same source in another precision, whose models are the same ones."""
    own = _manifest(repository, name, versions[name])
    if own is None or not _IDENTITY & own.source.keys():
        return {}
    found = {}
    for version in repository.versions(name):
        other = _manifest(repository, name, version)
        if version == versions[name] or other is None or _origin(other) != _origin(own):
            continue
        if other.settings.get("precision") == own.settings.get("precision"):
            continue
        manifests = {
            model: _manifest(repository, model, version) for model in configs if _has(repository, model, version)
        }
        made_for = {model: parse(m.config) for model, m in manifests.items() if m is not None and m.config}
        if made_for.keys() == configs.keys() and all(_alike(made_for[m], c) for m, c in configs.items()):
            found[version] = made_for
    return found


def _others(repository: Repository, name: str, config: ModelConfigMessage, version: int) -> list[str]:
    """What to tell of other models of the same source: no config.pbtxt of this one can make it those."""
    own = _manifest(repository, name, version)
    if own is None or not _IDENTITY & own.source.keys():
        return []
    notes = []
    members = _needed_batches(repository)
    for other in repository.model_names():
        if other in members:
            continue
        versions = repository.versions(other)
        manifest = _manifest(repository, other, versions[-1]) if versions and other != name else None
        if manifest is None or _origin(manifest) != _origin(own):
            continue
        with contextlib.suppress(ConchError):
            if {t.name for t in repository.config(other).input} == {t.name for t in config.input}:
                precision = manifest.settings.get("precision") or "unknown precision"
                notes.append(f"{other} ({precision}) is of the same source: compare them with `conch perf run`")
    return notes


def _has(repository: Repository, model: str, version: int) -> bool:
    return version in repository.versions(model)


def _origin(manifest: Manifest) -> dict[str, object]:
    """What of a manifest's source says which model it is, and not how it was turned into a version."""
    return {key: value for key, value in manifest.source.items() if key not in _NOT_ORIGIN}


def _alike(one: ModelConfigMessage, other: ModelConfigMessage) -> bool:
    """Whether two configs are of the same kind of model: backend, members."""
    steps = [[step.model_name for step in config.ensemble_scheduling.step] for config in (one, other)]
    return one.backend == other.backend and one.platform == other.platform and steps[0] == steps[1]


def _precision(repository: Repository, configs: Mapping[str, ModelConfigMessage], version: int) -> str:
    for model in reversed(list(configs)):
        if _has(repository, model, version):
            manifest = _manifest(repository, model, version)
            if manifest is not None and manifest.settings.get("precision"):
                return str(manifest.settings["precision"])
    return ""
