"""A stage, or a version that is there, as a journal: what each model's config becomes, by which route. Reads only."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias, Held
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, parse, render, selected_versions
from conch.switching import files, journal, side_models
from conch.switching.journal import Beside, Journal, Part
from conch.switching.policy import (
    policy_key,
    policy_text,
    same_but_policy,
    with_latest,
    with_policy_text,
    with_versions,
)
from conch.switching.taker import Taker

if TYPE_CHECKING:
    from conch.repository import Repository


@dataclasses.dataclass(frozen=True)
class Live:
    """A model as it lies in the repository: its folder, its config's text and message, and what serves."""

    name: str
    path: Path
    text: str | None
    config: ModelConfigMessage
    versions: tuple[int, ...]
    serves: tuple[int, ...]
    loaded: bool


def look(repository: Repository, name: str, taker: Taker) -> Live:
    """A model as it is now. What a server has loaded serves, else what the config allows. Raises: ConfigError."""
    path = repository.root / name
    text = files.read_config_text(path)
    config = parse(text, path / CONFIG_FILE) if text else ModelConfig()
    versions = tuple(files.versions_in(path))
    loaded = tuple(v for v in taker.served(name) if v in versions)
    return Live(name, path, text, config, versions, loaded or selected_versions(config, versions), bool(loaded))


def next_version(repository: Repository, names: Iterable[str]) -> int:
    """One above the highest that any of the models has, canaries included: a pipeline's parts carry the same number."""
    wanted = set(names)
    found = [v for name in wanted for v in files.versions_in(repository.root / name)]
    folders = repository.root.iterdir() if repository.root.is_dir() else ()
    sides = (side_models.parse(folder.name) for folder in folders)
    found += [side.version for side in sides if side is not None and side.model in wanted]
    return 1 + max(found, default=0)


def publish(
    repository: Repository,
    staged: Path,
    names: Sequence[str],
    taker: Taker,
    *,
    version: int | None = None,
    keep_loaded: bool = False,
    by: str = "",
) -> Journal:
    """The switch that makes staged models live, the public one named last. Raises: RepositoryError, ConfigError."""
    texts = {n: (staged / n / CONFIG_FILE).read_text(encoding="utf-8") for n in names}
    configs = {n: parse(text, staged / n / CONFIG_FILE) for n, text in texts.items()}
    number = version or next_version(repository, names)
    if version is None and any(config.response_cache.enable for config in configs.values()):
        # Triton may still hold answers of a version that was taken back: its number is not used again.
        number = max([number, *(1 + v for n in names for v in taker.known(n))])
    known = ledger.read(repository.root)
    lives = {name: look(repository, name, taker) for name in names}
    parts, after = [], {}
    for name, live in lives.items():
        if number in live.versions:
            raise RepositoryError(
                f"model {name} has a version {number} already", where=live.path, fix="leave the number to conch"
            )
        after[name] = _own_policy(configs[name], live, known.held.get(name), keep_loaded)
        _check_serves(after[name], live, number)
        after[name] = _keep_named(after[name], live, number, known.aliases.get(name, {}))
        beside = _beside(staged / name, live.path)
        parts.append(_part(live, after[name], texts[name], number, added=True, beside=beside))
    public = names[-1]
    route = journal.PLAIN
    if lives[public].serves and _uses(after[public], lives) and any(lives[n].serves for n in names[:-1]):
        route = journal.SIDE
    return _journal(route, parts, lives, after, number, by)


def activate(repository: Repository, name: str, version: int, taker: Taker, *, by: str = "") -> Journal:
    """The switch that lets a version serve that is there. Raises: RepositoryError, ConfigError."""
    repository.version_path(name, version)
    holds = ledger.read(repository.root).held
    own = _config_then(repository, name, version)
    steps = dict.fromkeys(step.model_name for step in own.ensemble_scheduling.step)
    members = [m for m in steps if version in files.versions_in(repository.root / m)]
    lives = {n: look(repository, n, taker) for n in (*members, name)}
    newest = version == max(lives[name].versions)
    parts, after = [], {}
    for model, live in lives.items():
        config = _config_then(repository, model, version)
        held = holds.get(model)
        policy = held.policy if held else policy_text(live.config)
        hold = None
        after[model] = with_policy_text(config, policy)
        if not newest or max(selected_versions(after[model], live.versions), default=0) != version:
            after[model] = with_versions(config, [version])
            hold = Held(version, policy)
        part = _part(live, after[model], render(after[model]), version, added=False)
        parts.append(dataclasses.replace(part, held=hold))
    route = journal.PLAIN
    if members and any(lives[p.name].config != after[p.name] for p in parts):
        kept = all(version in lives[m].serves and same_but_policy(lives[m].config, after[m]) for m in members)
        route = journal.KEPT if kept else journal.SIDE
    return _journal(route, parts, lives, after, version, by)


def canary(repository: Repository, staged: Path, names: Sequence[str], version: int | None = None) -> Journal:
    """Bring staged models up under names of their own. Raises: RepositoryError, ConfigError."""
    number = version or next_version(repository, names)
    steps = {n: (side_models.canary_name(n, number), number) for n in names}
    parts = []
    for name in names:
        side = steps[name][0]
        if (repository.root / side).exists():
            raise RepositoryError(
                f"there is a canary {side} already", where=repository.root / side, fix="promote it, or take it down"
            )
        config = parse((staged / name / CONFIG_FILE).read_text(encoding="utf-8"), staged / name / CONFIG_FILE)
        text = render(side_models.config_of(config, side, steps))
        parts.append(Part(name, None, "", "", added=False, loaded=False, side=side, side_config=text))
    return Journal(names[-1], number, journal.CANARY, tuple(parts), None, pid=os.getpid())


def _journal(
    route: str,
    parts: Sequence[Part],
    lives: Mapping[str, Live],
    after: Mapping[str, ModelConfigMessage],
    version: int,
    by: str,
) -> Journal:
    public = parts[-1]
    switched = ""
    if route != journal.PLAIN:
        # A new member serves nobody yet: the ensemble can use it as it is.
        beside = {p.name for p in parts[:-1] if route == journal.SIDE and lives[p.name].serves}
        steps = {
            p.name: (side_models.next_name(p.name, version) if p.name in beside else p.name, version)
            for p in parts[:-1]
        }
        parts = [_with_side(p, after[p.name], steps) if p.name in beside else p for p in parts]
        mapped = side_models.config_of(after[public.name], public.name, steps)
        switched = render(with_versions(mapped, [version]))
    return Journal(
        public.name,
        version,
        route,
        tuple(parts),
        max(lives[public.name].serves, default=None),
        switched,
        by,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        pid=os.getpid(),
    )


def _with_side(part: Part, config: ModelConfigMessage, steps: Mapping[str, tuple[str, int]]) -> Part:
    side = steps[part.name][0]
    return dataclasses.replace(part, side=side, side_config=render(side_models.config_of(config, side, steps)))


def _part(
    live: Live, after: ModelConfigMessage, text: str, version: int, *, added: bool, beside: tuple[Beside, ...] = ()
) -> Part:
    """What becomes of one model. Texts stay as somebody wrote them, comments and all, where their meaning stays."""
    kept = live.text if live.text and live.config == after else _text_of(after, text)
    pinned = ""
    if live.text is not None:
        left_alone = selected_versions(live.config, [*live.versions, version]) == live.serves
        pinned = live.text if left_alone else _text_of(with_versions(live.config, live.serves), live.text)
    return Part(live.name, live.text, pinned, kept, added=added, loaded=live.loaded, beside=beside)


def _text_of(config: ModelConfigMessage, text: str) -> str:
    """A config's text, made from another of which only the policy may differ, so that its comments stay."""
    original = parse(text)
    if original == config:
        return text
    if same_but_policy(original, config) and not original.HasField("version_policy"):
        return f"{text.rstrip()}\n{policy_text(config)}\n".lstrip()
    return render(config)


def _own_policy(config: ModelConfigMessage, live: Live, held: Held | None, keep_loaded: bool) -> ModelConfigMessage:
    """The candidate's config with the policy that the user gave the model: a hold of ours is none."""
    if not config.HasField("version_policy") and live.text is not None:
        config = with_policy_text(config, held.policy if held else policy_text(live.config))
    if keep_loaded and policy_key(config) in (("latest", (0,)), ("latest", (1,))):
        config = with_latest(config, 2)
    return config


def _check_serves(config: ModelConfigMessage, live: Live, version: int) -> None:
    if max(selected_versions(config, [*live.versions, version]), default=0) != version:
        raise RepositoryError(
            f"the version_policy of {live.name} does not let version {version} serve",
            where=live.path / CONFIG_FILE,
            got=policy_text(config),
            expected="a policy that takes new versions: latest or all",
            fix="take version_policy out of config.pbtxt, or publish a config with another one",
        )


def _keep_named(
    config: ModelConfigMessage, live: Live, version: int, aliases: Mapping[str, Alias]
) -> ModelConfigMessage:
    """The config with a policy that keeps loaded what aliases name. Raises: RepositoryError where none can."""
    there = [*live.versions, version]
    served = selected_versions(config, there)
    named = {n: a.version for n, a in sorted(aliases.items()) if a.model == live.name and a.version in live.serves}
    lost = {n: v for n, v in named.items() if v not in served}
    if not lost:
        return config
    if config.HasField("ensemble_scheduling") or not same_but_policy(config, live.config):
        alias, old = next(iter(lost.items()))
        raise RepositoryError(
            f"{live.name}@{alias} names version {old}, which cannot stay loaded beside version {version}",
            where=live.path,
            got="a pipeline" if config.HasField("ensemble_scheduling") else "another config.pbtxt",
            expected="versions that share one config.pbtxt",
            fix=f"publish it beside what serves (--alias canary), or `conch repo alias {live.name}@{alias} --remove`",
        )
    return with_latest(config, sum(v >= min(lost.values()) for v in there))


def _beside(staged: Path, live: Path) -> tuple[Beside, ...]:
    """The files beside a staged config.pbtxt that a live model has not, or has otherwise."""
    changed = []
    for path in sorted(staged.iterdir()):
        if path.name == CONFIG_FILE or not path.is_file():
            continue
        target = live / path.name
        before, after = target.read_bytes() if target.is_file() else None, path.read_bytes()
        if live.is_dir() and before != after:
            told = None if before is None else base64.b64encode(before).decode()
            changed.append(Beside(path.name, told, base64.b64encode(after).decode()))
    return tuple(changed)


def _uses(config: ModelConfigMessage, names: Iterable[str]) -> bool:
    return not {step.model_name for step in config.ensemble_scheduling.step}.isdisjoint(names)


def _config_then(repository: Repository, name: str, version: int) -> ModelConfigMessage:
    """The config that a version was made for: its manifest's, the one it served by, or where both lack the live one."""
    manifest = repository.manifest(name, version)
    remembered = remembered_config(repository.staging, name, version)
    if manifest is not None and manifest.config:
        config = parse(manifest.config, f"manifest.json of {name} {version}")
    elif remembered.is_file():
        config = parse(remembered.read_text(encoding="utf-8"), remembered)
    else:
        config = repository.config(name)
    config.name = name
    return config


def remembered_config(staging: Path, name: str, version: int) -> Path:
    """Where the config of a version without a manifest is kept when another version's replaces it."""
    return staging / "configs" / name / f"{version}.pbtxt"
