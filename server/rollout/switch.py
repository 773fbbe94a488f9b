"""Make a stage live in one step, or take it back whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.manifest import digest_files
from conch.model_config import CONFIG_FILE, parse, selected_versions
from conch.repository import Repository, Stage, disk_error
from conch.switching import locks, plan, run, side_models
from conch.switching.checkpoint import reached
from conch.switching.files import move_out, versions_in
from conch.switching.journal import CANARY, PLAIN, Journal
from conch.switching.policy import same_but_policy
from server.rollout.dependents import ensembles_using
from server.rollout.live import Live
from server.rollout.locks import changing

# Asked with a model's name and the version that should answer; it raises ConchError when it does not answer rightly.
Verify = Callable[[str, int], None]


@dataclass(frozen=True)
class Switched:
    """What a switch did.

    ``previous`` served before (None: nothing did). ``parts`` are all models that changed, the public one last;
    ``configs`` those of them whose config.pbtxt changed. ``verified`` are the models that were asked afterwards.
    ``warnings`` tell of others' ensembles that use a member and answer wrongly now.
    """

    name: str
    version: int
    previous: int | None
    parts: tuple[str, ...]
    configs: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideBySide:
    """A candidate that runs beside what serves: ask for ``model``. ``models`` are all that were brought up for it."""

    name: str
    version: int
    model: str
    models: tuple[str, ...]


def publish(
    stage: Stage,
    live: Live,
    *,
    verify: Verify,
    keep_loaded: bool = False,
    version: int | None = None,
    by: str = "publish",
) -> Switched:
    """Make the staged versions the ones that serve.

    ``verify`` is asked for the public model and for each ensemble that uses it, when a server runs; what it raises
    undoes the switch completely. ``keep_loaded`` leaves the version before loaded, so that going back takes no load.
    ``version`` None takes the next number. Raises: RepositoryError, ModelLoadError, what verify raises.
    """
    stage.check()
    repository = stage.repository
    with changing(repository, stage.models):
        return carry_out(
            repository,
            live,
            lambda: plan.publish(
                repository, stage.path, stage.models, live, version=version, keep_loaded=keep_loaded, by=by
            ),
            verify=verify,
            staged=stage.path,
        )


def carry_out(
    repository: Repository, live: Live, make: Callable[[], Journal], *, verify: Verify, staged: Path | None = None
) -> Switched:
    """Finish what others left, plan under the repository's lock, switch, and check others' ensembles.

    Raises: RepositoryError, ModelLoadError, what verify raises.
    """
    try:
        with locks.repository(repository.staging):
            run.recover(repository.root, repository.staging, live)
            journal = make()
            verified: list[str] = []

            def ask() -> None:
                for name, number in _to_verify(repository, live, journal):
                    verify(name, number)
                    verified.append(name)

            run.Switch(journal, repository.root, repository.staging, live).run(staged, ask)
            warnings = _check_others(repository, live, journal, verify, verified)
    except OSError as error:
        raise disk_error(error, repository.root) from error
    configs = tuple(p.name for p in journal.parts if p.before is not None and not _same_text(p.before, p.after))
    parts = tuple(p.name for p in journal.parts)
    return Switched(journal.name, journal.version, journal.previous, parts, configs, tuple(verified), warnings)


def _to_verify(repository: Repository, live: Live, journal: Journal) -> list[tuple[str, int]]:
    """The public model, and the ensembles that met the new version with it."""
    if not live.runs:
        return []
    if journal.route == CANARY:
        return [(journal.public.side, journal.version)]
    changed = [p.name for p in journal.parts] if journal.route == PLAIN else [journal.name]
    users = [n for n in ensembles_using(repository, changed) if side_models.parse(n) is None]
    found = [(journal.name, journal.version)]
    own = {p.name for p in journal.parts}
    return found + [(n, served[-1]) for n in users if n not in own and (served := live.served(n))]


def _check_others(
    repository: Repository, live: Live, journal: Journal, verify: Verify, verified: list[str]
) -> tuple[str, ...]:
    """Others' ensembles that use a member of a pipeline met its new version only after the switch: they are told of."""
    if not live.runs or journal.route == CANARY:
        return ()
    warnings = []
    for name in ensembles_using(repository, [p.name for p in journal.parts]):
        served = live.served(name)
        if name in verified or not served:
            continue
        try:
            verify(name, served[-1])
            verified.append(name)
        except ConchError as error:
            warnings.append(f"{name}, which uses a part of {journal.name}: {error}")
    return tuple(warnings)


def _same_text(one: str, other: str) -> bool:
    return bool(parse(one) == parse(other))


def already_there(stage: Stage) -> int | None:
    """The version that serves, when the stage holds exactly that: the same files and the same configs.

    Version policies may differ: they are the repository's business. Ask after `recover`: what a killed run has left is
    no version that serves.
    """
    stage.check()
    repository = stage.repository
    served: set[int] = set()
    for name in stage.models:
        if not (repository.root / name / CONFIG_FILE).is_file():
            return None
        config = repository.config(name)
        versions = selected_versions(config, repository.versions(name))
        staged = Repository(stage.path)
        if not versions or not same_but_policy(config, staged.config(name)):
            return None
        if digest_files(stage.path / name / "1") != digest_files(repository.version_path(name, versions[-1])):
            return None
        served.add(versions[-1])
    return served.pop() if len(served) == 1 else None


def side_by_side(stage: Stage, live: Live, *, verify: Verify, version: int | None = None) -> SideBySide:
    """Bring the staged versions up next to what serves (a canary), under the name NAME.vM; nothing is switched.

    Raises: RepositoryError, ModelLoadError, what verify raises; nothing is left then.
    """
    stage.check()
    repository = stage.repository
    with changing(repository, stage.models, "canary"):
        done = carry_out(
            repository,
            live,
            lambda: plan.canary(repository, stage.path, stage.models, version),
            verify=verify,
            staged=stage.path,
        )
    names = tuple(side_models.canary_name(name, done.version) for name in done.parts)
    return SideBySide(done.name, done.version, names[-1], names)


def complete(
    repository: Repository,
    name: str,
    version: int,
    live: Live,
    *,
    verify: Verify,
    published: Callable[[int], None] = lambda version: None,
) -> Switched:
    """Publish a canary for real, and take it down. Its number is kept unless something newer came meanwhile.

    ``published`` is called with the number when the version serves, before the side models go. Raises:
    RepositoryError, ModelLoadError, what verify raises; the canary is then still there.
    """
    models = _canary_models(repository, name, version)
    with changing(repository, models, "promote"), repository.stage() as stage:
        back = {side_models.canary_name(model, version): (model, -1) for model in models}
        for model in models:
            side = side_models.canary_name(model, version)
            source = repository.model_path(side)
            target = stage.add_model(model, side_models.config_of(repository.config(side), model, back))
            # Copies: a second name for a file that is served would change it in Triton's eyes.
            shutil.copytree(source / str(version), target, dirs_exist_ok=True)
            for beside in source.iterdir():
                if beside.is_file() and beside.name != CONFIG_FILE:
                    shutil.copy2(beside, stage.model_path(model) / beside.name)
        newest = max((v for model in models for v in versions_in(repository.root / model)), default=0)
        number = version if version > newest else None
        done = publish(stage, live, verify=verify, version=number, by="promote")
        published(done.version)
        take_down(repository, name, version, live)
    return done


def take_down(repository: Repository, name: str, version: int, live: Live) -> tuple[str, ...]:
    """Remove a canary, files and all; returns the models that went. Raises: RepositoryError, ServerError."""
    models = _canary_models(repository, name, version)
    sides = tuple(side_models.canary_name(model, version) for model in reversed(models))
    with changing(repository, models, "change"), locks.repository(repository.staging):
        run.recover(repository.root, repository.staging, live)
        for side in sides:  # the ensemble first, so that nothing asks a model that has gone
            move_out(repository.root / side, repository.staging)
            reached(f"remove {side}")
            live.remove(side)
    return sides


def _canary_models(repository: Repository, name: str, version: int) -> list[str]:
    """The models that a canary stands for, the public one last. Raises: RepositoryError when there is none."""
    side = side_models.canary_name(name, version)
    if not (repository.root / side).is_dir() and (left := _left_over(repository, name, version)):
        return [*left, name]
    steps = [step.model_name for step in repository.config(side).ensemble_scheduling.step]
    members = [p.model for p in map(side_models.parse, dict.fromkeys(steps)) if p is not None and p.version == version]
    return [*members, name]


def _left_over(repository: Repository, name: str, version: int) -> list[str]:
    """Members of a canary whose ensemble has gone: whoever took it down died on the way."""
    sides = [side for side in map(side_models.parse, repository.model_names()) if side is not None]
    return [s.model for s in sides if s.version == version and not s.temporary and s.model.startswith(f"{name}_")]
