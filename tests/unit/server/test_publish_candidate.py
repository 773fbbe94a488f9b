"""What SOURCE is: which models, under which names, with which configs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from conch import ledger
from conch.errors import ConchError, RepositoryError
from conch.ledger import Held
from conch.manifest import Manifest, digest_files
from conch.model_config import parse
from conch.repository import Repository
from server.rollout.candidate import Candidate, ConfigChoice, find
from tests.fakes import onnx_graphs

ENSEMBLE = """
    name: "NAME"
    platform: "ensemble"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    ensemble_scheduling { step { model_name: "NAME_model" model_version: 1
        input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }
"""


@pytest.fixture
def live(tmp_path: Path) -> Repository:
    (tmp_path / "live").mkdir()
    return Repository(tmp_path / "live")


@pytest.fixture
def pipeline(tmp_path: Path, write_python_model: Any) -> Path:
    root: Path = tmp_path / "stage"
    write_python_model(root, "pipe_model")
    write_python_model(root, "pipe", "", ENSEMBLE)
    return root


def onnx_file(path: Path) -> Path:
    path.write_bytes(onnx_graphs.identity())
    return path


def only(candidate: Candidate) -> Any:
    [model] = candidate.models
    return model


def test_a_model_folder_gives_its_latest_version(tmp_path: Path, live: Repository, write_python_model: Any) -> None:
    write_python_model(tmp_path / "in", "tiny", added=1)
    write_python_model(tmp_path / "in", "tiny", added=2, version=12)
    (tmp_path / "in" / "tiny" / "labels.txt").write_text("a\nb\n")
    model = only(find(tmp_path / "in" / "tiny", live))
    assert model.name == "tiny"
    assert model.files["model.py"] == tmp_path / "in" / "tiny" / "12" / "model.py"
    assert set(model.beside) == {"labels.txt"}
    assert model.config_from == "its config.pbtxt"


def test_a_pipeline_brings_its_members_first_and_unpinned(pipeline: Path, live: Repository) -> None:
    found = find(pipeline, live)
    assert found.names == ("pipe_model", "pipe")
    [step] = found.models[-1].config.ensemble_scheduling.step
    assert (step.model_name, step.model_version) == ("pipe_model", -1)
    assert find(pipeline / "pipe", live).names == found.names
    assert find(pipeline / "pipe_model", live).names == ("pipe_model",)


def test_a_pipeline_is_renamed_with_its_members(pipeline: Path, live: Repository) -> None:
    found = find(pipeline, live, "other")
    assert found.names == ("other_model", "other")
    assert [m.config.name for m in found.models] == ["other_model", "other"]
    assert found.models[-1].config.ensemble_scheduling.step[0].model_name == "other_model"


def test_several_models_that_are_no_pipeline_are_refused(
    pipeline: Path, live: Repository, write_python_model: Any
) -> None:
    write_python_model(pipeline, "else")
    with pytest.raises(RepositoryError, match="not one pipeline") as raised:
        find(pipeline, live)
    assert raised.value.got == "else, pipe"


def test_a_version_folder_takes_name_and_config_from_its_manifest(
    tmp_path: Path, live: Repository, write_python_model: Any
) -> None:
    folder = write_python_model(tmp_path / "in", "tiny")
    config = (tmp_path / "in" / "tiny" / "config.pbtxt").read_text()
    Manifest("tiny", "now", {}, digest_files(folder), config).write(folder)
    shutil.move(folder, tmp_path / "run17")
    (tmp_path / "run17" / "_SUCCESS").touch()
    model = only(find(tmp_path / "run17", live))
    assert (model.name, model.config_from) == ("tiny", "its manifest")
    assert set(model.files) == {"model.py", "__pycache__"}
    assert [p.name for p in model.came_with] == ["manifest.json"]


def test_a_bare_version_folder_takes_the_live_config(tmp_path: Path, live: Repository, write_python_model: Any) -> None:
    write_python_model(live.root, "tiny")
    bare = write_python_model(tmp_path / "in", "x")
    model = only(find(bare, live, "tiny"))
    assert (model.name, model.config_from) == ("tiny", "the live model's config")
    with pytest.raises(RepositoryError, match="nothing tells how new is served"):
        find(shutil.copytree(bare, tmp_path / "bare"), live, "new")


def test_the_live_policy_stays_unless_the_config_has_one(
    tmp_path: Path, live: Repository, write_python_model: Any
) -> None:
    write_python_model(live.root, "tiny")
    path = live.root / "tiny" / "config.pbtxt"
    path.write_text(path.read_text() + "version_policy { latest { num_versions: 3 } }\n")
    write_python_model(tmp_path / "in", "tiny")
    assert only(find(tmp_path / "in" / "tiny", live)).config.version_policy.latest.num_versions == 3


def test_a_held_version_is_let_go_by_the_next_publish(
    tmp_path: Path, live: Repository, write_python_model: Any
) -> None:
    write_python_model(live.root, "tiny")
    path = live.root / "tiny" / "config.pbtxt"
    path.write_text(path.read_text() + "version_policy { specific { versions: 1 } }\n")
    ledger.update(
        live.root, lambda now: now.with_held("tiny", Held(1, "version_policy { latest { num_versions: 2 } }"))
    )
    write_python_model(tmp_path / "in", "tiny")
    assert only(find(tmp_path / "in" / "tiny", live)).config.version_policy.latest.num_versions == 2


@pytest.mark.parametrize(
    ("choice", "delay"),
    [(ConfigChoice(), 0), (ConfigChoice(keep_live=True), 7), (ConfigChoice(file=Path("other.pbtxt")), 9)],
    ids=["its-own", "keep", "file"],
)
def test_which_config(
    choice: ConfigChoice, delay: int, tmp_path: Path, live: Repository, write_python_model: Any
) -> None:
    def write(root: Path, delay: int) -> Path:
        write_python_model(root, "tiny")
        path = root / "tiny" / "config.pbtxt"
        path.write_text(path.read_text() + f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}\n")
        return path

    write(live.root, 7)
    write(tmp_path / "in", 0)
    if choice.file is not None:
        choice = ConfigChoice(file=write(tmp_path / "other", 9))
    model = only(find(tmp_path / "in" / "tiny", live, None, choice))
    assert model.config.dynamic_batching.max_queue_delay_microseconds == delay


def test_a_bare_onnx_file_is_served_by_its_header(tmp_path: Path, live: Repository) -> None:
    path = onnx_file(tmp_path / "line.onnx")
    model = only(find(path, live))
    assert (model.name, model.config.backend) == ("line", "onnxruntime")
    assert model.config.max_batch_size > 1
    assert model.files == {"model.onnx": path}
    assert [t.name for t in model.config.input] == ["x"]


def test_a_bare_onnx_file_keeps_the_live_config_where_it_fits(tmp_path: Path, live: Repository) -> None:
    path = onnx_file(tmp_path / "line.onnx")
    config = only(find(path, live)).config
    config.dynamic_batching.max_queue_delay_microseconds = 5
    (live.root / "line" / "1").mkdir(parents=True)
    (live.root / "line" / "config.pbtxt").write_text(str(config))
    again = only(find(path, live))
    assert (again.config, again.config_from) == (config, "the live model's config")

    config.input[0].name = "other"
    (live.root / "line" / "config.pbtxt").write_text(str(config))
    other = only(find(path, live))
    assert "which differ" in other.config_from
    assert other.config.input[0].name == "x"
    assert other.config.dynamic_batching.max_queue_delay_microseconds == 5


def test_an_onnx_file_named_model_needs_a_name(tmp_path: Path, live: Repository) -> None:
    path = onnx_file(tmp_path / "model.onnx")
    with pytest.raises(RepositoryError, match="no name for its model"):
        find(path, live)
    assert find(path, live, "spam").name == "spam"


def test_a_link_to_nothing_is_a_file_that_lacks(tmp_path: Path, live: Repository, write_python_model: Any) -> None:
    folder = write_python_model(tmp_path / "in", "tiny")
    (folder / "weights.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(RepositoryError, match="a file of the version is not there"):
        find(folder.parent, live)


def make(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "model.txt":
        path.write_text("what")
    elif kind == "broken.onnx":
        path.write_bytes(b"no model")
    return path


@pytest.mark.parametrize("kind", ["absent", "empty", "model.txt", "broken.onnx"])
def test_what_is_nothing_to_publish(kind: str, tmp_path: Path, live: Repository) -> None:
    with pytest.raises(ConchError):
        find(make(kind, tmp_path), live)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b"])
def test_a_name_that_is_none(name: str, tmp_path: Path, live: Repository) -> None:
    with pytest.raises(RepositoryError, match="no name for a model"):
        find(tmp_path, live, name)


def test_the_config_is_parsed_once_and_never_shared(pipeline: Path, live: Repository) -> None:
    before = (pipeline / "pipe" / "config.pbtxt").read_text()
    find(pipeline, live, "other")
    assert (pipeline / "pipe" / "config.pbtxt").read_text() == before
    assert parse(before).ensemble_scheduling.step[0].model_version == 1
