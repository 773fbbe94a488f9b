import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conch.errors import RepositoryError
from conch.model_config import ModelConfig, read_config
from conch.repository import Repository, Stage


def config(name: str, size: int = 0) -> ModelConfig:
    return ModelConfig(name=name, backend="python", max_batch_size=size)


def stage_one(stage: Stage, name: str = "m", content: str = "pass", size: int = 0) -> None:
    folder = stage.add_model(name, config(name, size))
    (folder / "model.py").write_text(content)


def add(root: Path, name: str = "m", content: str = "pass", size: int = 0) -> int:
    with Repository(root).stage() as stage:
        stage_one(stage, name, content, size)
        return stage.commit()


def tree(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def test_versions_count_up(root: Path) -> None:
    assert [add(root, content=c) for c in ("a", "b", "c")] == [1, 2, 3]
    repository = Repository(root)
    assert repository.model_names() == ["m"]
    assert repository.versions("m") == [1, 2, 3]
    assert repository.latest("m") == 3
    assert (repository.version_path("m", 2) / "model.py").read_text() == "b"


def test_nothing_is_left_in_the_staging_folder(root: Path) -> None:
    add(root)
    assert [p.name for p in Repository(root).staging.iterdir()] == ["lock"]
    assert Repository(root).staging.parent == root.parent


def test_the_config_is_replaced_with_the_version(root: Path) -> None:
    add(root, size=0)
    add(root, size=8)
    assert read_config(root / "m" / "config.pbtxt").max_batch_size == 8


def test_a_stage_that_is_not_committed_leaves_nothing(root: Path) -> None:
    add(root)
    before = tree(root)
    with pytest.raises(RuntimeError), Repository(root).stage() as stage:
        stage_one(stage, content="half")
        raise RuntimeError
    assert tree(root) == before
    assert [p.name for p in Repository(root).staging.iterdir()] == ["lock"]


def test_the_stage_is_a_repository_of_its_own(root: Path) -> None:
    with Repository(root).stage() as stage:
        stage_one(stage)
        assert Repository(stage.path).versions("m") == [1]
        assert root not in stage.path.parents


def test_the_parts_of_a_pipeline_share_a_number(root: Path) -> None:
    add(root, "p_model")
    add(root, "p_model")
    with Repository(root).stage() as stage:
        stage_one(stage, "p_model")
        stage_one(stage, "p")
        assert stage.commit() == 3
    assert Repository(root).versions("p") == [3]
    assert Repository(root).versions("p_model") == [1, 2, 3]


@pytest.mark.parametrize("folder", ["01", "3_old", "3.tmp", "v1", "0", "-1"])
def test_folders_that_are_no_versions_do_not_count(root: Path, folder: str) -> None:
    add(root)
    (root / "m" / folder).mkdir()
    assert Repository(root).versions("m") == [1]


def test_versions_sort_as_numbers(root: Path) -> None:
    for number in (10, 9, 2):
        (root / "m" / str(number)).mkdir(parents=True)
    assert Repository(root).versions("m") == [2, 9, 10]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "-x"])
def test_bad_model_names_are_refused(root: Path, name: str) -> None:
    with pytest.raises(RepositoryError, match="no name for a model"), Repository(root).stage() as stage:
        stage.add_model(name, config(name))


def test_an_empty_version_is_refused(root: Path) -> None:
    with pytest.raises(RepositoryError, match="is empty"), Repository(root).stage() as stage:
        stage.add_model("m", config("m"))
        stage.commit()
    assert Repository(root).model_names() == []


def test_an_unknown_model_is_named_with_the_nearest(root: Path) -> None:
    add(root, "embeddings")
    with pytest.raises(RepositoryError, match="did you mean embeddings"):
        Repository(root).versions("embedings")


def test_an_unknown_version_is_named_with_what_there_is(root: Path) -> None:
    add(root)
    with pytest.raises(RepositoryError, match=r"\[1\]"):
        Repository(root).version_path("m", 7)


def _write_many(root: Path, writer: int, count: int) -> None:
    for turn in range(count):
        add(root, content=f"{writer}:{turn}")


def test_writers_at_once_share_no_version(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(root, w, 10)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0] * 4
    repository = Repository(root)
    assert repository.versions("m") == list(range(1, 41))
    contents = {(repository.version_path("m", v) / "model.py").read_text() for v in range(1, 41)}
    assert contents == {f"{w}:{t}" for w in range(4) for t in range(10)}


KILLED_WRITER = """
import os, signal, sys
from conch.model_config import ModelConfig
from conch.repository import Repository
point, root = sys.argv[1], sys.argv[2]
real = os.rename
def rename(source, target):
    if point == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    if point == "after":
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename
with Repository(root).stage() as stage:
    folder = stage.add_model("m", ModelConfig(name="m", backend="python"))
    (folder / "model.py").write_text("late")
    if point == "staged":
        os.kill(os.getpid(), signal.SIGKILL)
    stage.commit()
"""


@pytest.mark.parametrize(("point", "versions"), [("staged", []), ("before", []), ("after", [1])])
def test_a_killed_writer_leaves_a_whole_version_or_none(root: Path, point: str, versions: list[int]) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, point, str(root)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    repository = Repository(root)
    assert (repository.versions("m") if repository.model_names() else []) == versions
    assert len([p for p in repository.staging.iterdir() if p.is_dir()]) == 1
    assert add(root) == 1  # what was not finished is taken back first
    assert (repository.version_path("m", 1) / "model.py").read_text() == "pass"
    assert [p.name for p in repository.staging.iterdir()] == ["lock"]


def test_a_living_writers_stage_is_not_swept(root: Path) -> None:
    with Repository(root).stage() as first:
        stage_one(first, content="first")
        add(root, content="second")
        assert first.commit() == 2


def test_a_full_disk_is_an_error_that_names_the_fix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root)
    before = tree(root)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RepositoryError, match="free disk space"):
        add(root)
    assert tree(root) == before


def test_files_are_on_disk_before_they_are_renamed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    add(root)
    assert events.index("model.py") < events.index("rename")
    assert root.name in events[len(events) - events[::-1].index("rename") :]


def test_a_version_made_by_hand_has_no_manifest(root: Path) -> None:
    add(root)
    assert Repository(root).manifest("m", 1) is None


def test_a_manifest_of_another_format_is_refused(root: Path) -> None:
    add(root)
    (root / "m" / "1" / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RepositoryError, match="format that this conch does not know"):
        Repository(root).manifest("m", 1)
