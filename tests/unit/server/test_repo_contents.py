import os
from pathlib import Path

import pytest

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias, Held, Ledger, Served
from server.http_api import ModelState
from server.repo_view.contents import look, size_of
from server.repo_view.live_states import LiveStates
from tests.fakes.written_versions import CONFIG, add_pipeline, add_side_model, add_versions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def test_models_are_told_apart_by_what_uses_them(root: Path) -> None:
    add_versions(root, ["spam"])
    add_pipeline(root, "digits", count=2)
    add_side_model(root, "digits", 3)
    view = look(root)
    assert {m.name: m.kind for m in view.models.values()} == {
        "spam": "model",
        "digits": "pipeline",
        "digits_preprocess": "member",
        "digits_model": "member",
        "digits.v3": "side",
    }
    assert [m.name for m in view.parts("digits")] == ["digits", "digits_preprocess", "digits_model"]
    assert view.model("digits.v3").side_of == "digits"
    assert view.version("digits", 3).path == root / "digits.v3" / "3"


def test_a_name_like_a_side_models_is_a_models_when_it_stands_alone(root: Path) -> None:
    add_versions(root, ["yolo.v8"])
    assert look(root).model("yolo.v8").kind == "model"


@pytest.mark.parametrize(
    ("policy", "loads", "serves"),
    [
        ("", [3], 3),
        ("version_policy { latest { num_versions: 2 } }", [2, 3], 3),
        ("version_policy { specific { versions: [1, 2] } }", [1, 2], 2),
        ("version_policy { specific { versions: [9] } }", [], None),
    ],
)
def test_without_a_server_the_policy_says_what_serves(
    root: Path, policy: str, loads: list[int], serves: int | None
) -> None:
    add_versions(root, count=3)
    (root / "spam" / "config.pbtxt").write_text(CONFIG + policy)
    model = look(root).model("spam")
    assert [v.version for v in model.versions if v.loads] == loads
    assert model.serves == serves


def test_the_server_says_what_serves(root: Path) -> None:
    add_versions(root, count=3)
    states = (
        ModelState("spam", "2", "READY", ""),
        ModelState("spam", "3", "UNAVAILABLE", "it crashed"),
        ModelState("other", "1", "READY", ""),
    )
    model = look(root, LiveStates("http://x", states)).model("spam")
    assert (model.serves, model.due) == (2, 3)
    assert model.version(3).reason == "it crashed"
    assert model.version(1).state == ""


def test_the_ledger_is_part_of_it(root: Path) -> None:
    add_versions(root)
    known = Ledger({"spam": {"stable": Alias("spam", 1)}}, {"spam": (Served(1, "t", "b"),)}, {"spam": Held(1, "")})
    ledger.update(root, lambda _: known)
    model = look(root).model("spam")
    assert (model.aliases, model.history, model.held) == (known.aliases["spam"], known.history["spam"], Held(1, ""))


def test_broken_files_are_told_and_hide_nothing(root: Path) -> None:
    add_versions(root, ["spam", "ham"])
    (root / "spam" / "config.pbtxt").write_text("nonsense {")
    (root / "spam" / "1" / "manifest.json").write_text("{")
    view = look(root)
    assert "does not parse" in view.model("spam").problem
    assert "cannot be read" in view.model("spam").version(1).problem
    assert view.model("ham").problem == ""


def test_a_version_made_by_hand_is_there_without_a_source(root: Path) -> None:
    add_versions(root, by_hand=True)
    version = look(root).model("spam").version(1)
    assert (version.manifest, version.source, version.created_at, version.problem) == (None, "", "", "")


def test_a_model_without_a_config_serves_its_highest_version(root: Path) -> None:
    add_versions(root, count=2)
    (root / "spam" / "config.pbtxt").unlink()
    assert look(root).model("spam").serves == 2


def test_the_size_counts_a_file_of_several_names_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c").write_bytes(b"x" * 10)
    assert size_of(tmp_path) == 110


def test_what_is_not_there_is_named_with_what_is(root: Path) -> None:
    add_versions(root)
    with pytest.raises(RepositoryError, match="did you mean spam"):
        look(root).model("spma")
    with pytest.raises(RepositoryError, match="no version 7"):
        look(root).version("spam", 7)
    with pytest.raises(RepositoryError, match="there is no repository"):
        look(root / "nowhere")
