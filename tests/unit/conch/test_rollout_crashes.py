"""A switch that dies, or fails, at each step: what lies in the repository, and what the next command makes of it."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conch.errors import RepositoryError
from conch.repository import Repository
from conch.switching import checkpoint, locks, plan, run
from conch.switching.taker import NoServer
from tests.fakes.versioned_models import PARTS, stage_pipeline, stage_single, tree, would_serve


def add(repository: Repository, stage: Callable[..., None], *arguments: object, **options: object) -> None:
    with repository.stage() as place:
        stage(place, *arguments, **options)
        place.commit()


def activate(repository: Repository, name: str, version: int) -> None:
    with locks.repository(repository.staging):
        run.recover(repository.root, repository.staging, NoServer())
        journal = plan.activate(repository, name, version, NoServer(), by="rollback")
        run.Switch(journal, repository.root, repository.staging, NoServer()).run(None, lambda: None)


# Every step is flushed to disk: hundreds of switches are quicker in memory.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Case:
    """A change of one repository from serving ``before`` to serving ``after``."""

    name: str
    model: str
    before: str
    after: str
    prepare: Callable[[Repository], None]
    change: Callable[[Repository], None]


def keep_two(repository: Repository, names: tuple[str, ...]) -> None:
    for name in names:
        path = repository.root / name / "config.pbtxt"
        path.write_text(path.read_text() + "version_policy { latest { num_versions: 2 } }\n")


def two_kept_pipelines(repository: Repository) -> None:
    add(repository, stage_pipeline, 1, config_k=1)
    add(repository, stage_pipeline, 2, config_k=1)
    keep_two(repository, (*PARTS, "p"))


def two(stage: Callable[..., None]) -> Callable[[Repository], None]:
    def prepare(repository: Repository) -> None:
        add(repository, stage, 1)
        add(repository, stage, 2)

    return prepare


def held(stage: Callable[..., None], name: str) -> Callable[[Repository], None]:
    def prepare(repository: Repository) -> None:
        two(stage)(repository)
        activate(repository, name, 1)

    return prepare


CASES = [
    Case("new model", "m", "", "1", lambda r: None, lambda r: add(r, stage_single, 1)),
    Case("new version", "m", "1", "2", lambda r: add(r, stage_single, 1), lambda r: add(r, stage_single, 2)),
    Case("new pipeline", "p", "", "1", lambda r: None, lambda r: add(r, stage_pipeline, 1)),
    Case("pipeline", "p", "1", "2", lambda r: add(r, stage_pipeline, 1), lambda r: add(r, stage_pipeline, 2)),
    Case(
        "pipeline of other parts",
        "p",
        "1",
        "2",
        lambda r: add(r, stage_pipeline, 1, ("p_pre", "p_model")),
        lambda r: add(r, stage_pipeline, 2, ("p_model", "p_post")),
    ),
    Case("rollback", "m", "2", "1", two(stage_single), lambda r: activate(r, "m", 1)),
    Case("rollback of a pipeline", "p", "2", "1", two(stage_pipeline), lambda r: activate(r, "p", 1)),
    Case("publish over a hold", "p", "1", "3", held(stage_pipeline, "p"), lambda r: add(r, stage_pipeline, 3)),
    Case("promote to the latest", "p", "1", "2", held(stage_pipeline, "p"), lambda r: activate(r, "p", 2)),
]
# Their configs do not change with the version: what they serve shows in the files alone.
SAME_CONFIG = [
    Case(
        "same config",
        "m",
        "1",
        "2",
        lambda r: add(r, stage_single, 1, config_k=1),
        lambda r: add(r, stage_single, 2, config_k=1),
    ),
    Case("rollback of a kept pipeline", "p", "2", "1", two_kept_pipelines, lambda r: activate(r, "p", 1)),
]


def checkpoints(case: Case) -> list[str]:
    """Every place that a change comes by."""
    names: list[str] = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        repository = Repository(Path(folder) / "models")
        case.prepare(repository)
        checkpoint.set_hook(names.append)
        try:
            case.change(repository)
        finally:
            checkpoint.set_hook(None)
    assert len(set(names)) == len(names), names
    return names


def until_commit(names: list[str]) -> list[str]:
    return names[: names.index("committed")]


SEEN = {case.name: checkpoints(case) for case in CASES + SAME_CONFIG}
EVERY = [(case, name) for case in CASES + SAME_CONFIG for name in SEEN[case.name]]
BEFORE_COMMIT = [(case, name) for case, name in EVERY if name in until_commit(SEEN[case.name])]


# One of each route.
UNDONE = ("new version", "new pipeline", "pipeline", "same config", "rollback of a kept pipeline")


def named(value: object) -> str:
    return value.name if isinstance(value, Case) else str(value)


def serving(case: Case, root: Path) -> str:
    """What a server that is started now would serve: one version, whole."""
    if not (root / case.model).exists():
        return ""
    found = would_serve(root, case.model, configs=case not in SAME_CONFIG)
    assert len(found) == 1, f"a mix of {sorted(found)}"
    return found.pop()


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; its exit status, a signal's number negative."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def die_at(name: str) -> None:
    def hook(reached: str) -> None:
        if reached == name:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.set_hook(hook)


def assert_normal_shape(root: Path, staging: Path) -> None:
    assert not [p.name for p in root.iterdir() if ".v" in p.name]
    left = {p.name for p in staging.iterdir()}
    assert left <= {"lock", "ledger.lock", "configs"}
    configs = [p.read_text() for p in root.glob("*/config.pbtxt")]
    assert not any("model_version" in c and "model_version: -1" not in c for c in configs)


@pytest.fixture
def repository() -> Iterator[Repository]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Repository(Path(folder) / "models")


@pytest.mark.parametrize(("case", "name"), EVERY, ids=named)
def test_a_killed_switch_leaves_one_whole_version_and_is_finished_by_the_next(
    repository: Repository, case: Case, name: str
) -> None:
    case.prepare(repository)

    def dying() -> None:
        die_at(name)
        case.change(repository)

    assert in_a_child(dying) == -signal.SIGKILL
    assert serving(case, repository.root) in {case.before, case.after}
    done = run.recover(repository.root, repository.staging, NoServer())
    assert done is not None
    assert serving(case, repository.root) in {case.before, case.after}
    case.change(repository)
    assert serving(case, repository.root) == case.after
    with repository.stage():
        pass  # sweeps the stage of the dead
    assert_normal_shape(repository.root, repository.staging)


@pytest.mark.parametrize(("case", "name"), BEFORE_COMMIT, ids=named)
def test_a_disk_that_fills_up_at_any_step_changes_nothing(repository: Repository, case: Case, name: str) -> None:
    case.prepare(repository)
    before = tree(repository.root) if repository.root.exists() else {}

    def full(reached: str) -> None:
        if reached == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint.set_hook(full)
    try:
        with pytest.raises((OSError, RepositoryError), match=r"No space left|could not be written"):
            case.change(repository)
    finally:
        checkpoint.set_hook(None)
    assert tree(repository.root) == before
    assert run.recover(repository.root, repository.staging, NoServer()) is None


@pytest.mark.parametrize(("case", "name"), [c for c in BEFORE_COMMIT if c[0].name in UNDONE], ids=named)
def test_an_undo_that_dies_is_undone_by_the_next(repository: Repository, case: Case, name: str) -> None:
    """The first run dies at a step; the run that takes it back dies at each of its steps in turn."""
    case.prepare(repository)
    before = tree(repository.root) if repository.root.exists() else {}

    def dying() -> None:
        die_at(name)
        case.change(repository)

    in_a_child(dying)

    def dying_again() -> None:
        count = 0

        def hook(reached: str) -> None:
            nonlocal count
            count += 1
            if count == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.set_hook(hook)
        run.recover(repository.root, repository.staging, NoServer())

    in_a_child(dying_again)
    assert serving(case, repository.root) == case.before
    run.recover(repository.root, repository.staging, NoServer())
    assert tree(repository.root) == before


def test_tidying_up_that_fails_says_what_serves_and_is_done_by_the_next(repository: Repository) -> None:
    add(repository, stage_pipeline, 1)

    def full(reached: str) -> None:
        if reached == "finish config p_pre":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint.set_hook(full)
    try:
        with pytest.raises(run.Unfinished, match="version 2 of p serves"):
            add(repository, stage_pipeline, 2)
    finally:
        checkpoint.set_hook(None)
    assert would_serve(repository.root, "p") == {"2"}
    add(repository, stage_pipeline, 3)
    assert would_serve(repository.root, "p") == {"3"}
    assert_normal_shape(repository.root, repository.staging)
