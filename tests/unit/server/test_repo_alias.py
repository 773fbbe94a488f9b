import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias, Ledger
from conch.repository import Repository
from server.http_api import ModelState
from server.repo_view import aliasing
from server.repo_view.cli import alias
from server.repo_view.contents import look
from server.repo_view.live_states import LiveStates, Server
from tests.fakes.written_versions import CONFIG, add_pipeline, add_side_model, add_versions

FILES_ONLY = Server(none=True)


class Answering(Server):
    """A server that gives the states it was made with."""

    def __init__(self, *states: ModelState) -> None:
        object.__setattr__(self, "known", LiveStates("http://x", states))

    def states(self, root: Path) -> LiveStates:
        return self.known  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "model_repository"
    add_versions(root, count=3)
    return root


def aliases(root: Path, name: str = "spam") -> Mapping[str, Alias]:
    return ledger.read(root).aliases.get(name, {})


def test_a_version_that_serves_gets_a_name(root: Path) -> None:
    assert aliasing.set_alias(root, "spam@stable", 3, None, FILES_ONLY) == Alias("spam", 3)
    assert aliases(root) == {"stable": Alias("spam", 3)}


def test_a_version_beside_what_serves_is_asked_under_its_own_name(root: Path) -> None:
    add_side_model(root, "spam", 4)
    aliasing.set_alias(root, "spam@canary", 4, 0.1, FILES_ONLY)
    assert aliases(root) == {"canary": Alias("spam.v4", 4, 0.1)}


def test_a_weight_is_changed_and_the_version_stays(root: Path) -> None:
    aliasing.set_alias(root, "spam@stable", 3, 0.5, FILES_ONLY)
    aliasing.set_alias(root, "spam@stable", None, 0.25, FILES_ONLY)
    assert aliases(root) == {"stable": Alias("spam", 3, 0.25)}


def test_a_version_is_changed_and_the_weight_stays(root: Path) -> None:
    (root / "spam" / "config.pbtxt").write_text(CONFIG + "version_policy { all { } }")
    aliasing.set_alias(root, "spam@some", 2, 0.5, FILES_ONLY)
    aliasing.set_alias(root, "spam@some", 3, None, FILES_ONLY)
    assert aliases(root) == {"some": Alias("spam", 3, 0.5)}


def test_a_version_that_is_not_served_is_refused_with_the_way_to_serve_it(root: Path) -> None:
    with pytest.raises(RepositoryError) as caught:
        aliasing.set_alias(root, "spam@old", 1, None, FILES_ONLY)
    text = str(caught.value)
    assert "version 1 of spam is there, and is not served" in text
    assert "by the model's version policy: 3" in text
    assert f"conch repo publish {root / 'spam' / '1'} --as spam --alias old" in text
    assert aliases(root) == {}


def test_the_server_knows_better_than_the_files_what_is_served(root: Path) -> None:
    server = Answering(ModelState("spam", "2", "READY", ""), ModelState("spam", "3", "UNAVAILABLE", "no memory"))
    assert aliasing.set_alias(root, "spam@stable", 2, None, server) == Alias("spam", 2)
    with pytest.raises(RepositoryError, match="no memory"):
        aliasing.set_alias(root, "spam@stable", 3, None, server)


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        ("spam", 3, "MODEL@ALIAS"),
        ("spam@", 3, "MODEL@ALIAS"),
        ("spam@4", 3, "no name for an alias"),
        ("spam@stable", 9, "no version 9"),
        ("spma@stable", 3, "did you mean spam"),
        ("spam@stable", None, "no aliases"),
    ],
)
def test_what_cannot_be_named_is_refused(root: Path, text: str, version: int | None, message: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        aliasing.set_alias(root, text, version, 0.1, FILES_ONLY)
    assert message in str(caught.value)
    assert ledger.read(root) == Ledger()


def test_more_than_all_of_the_traffic_is_refused(root: Path) -> None:
    aliasing.set_alias(root, "spam@a", 3, 0.7, FILES_ONLY)
    with pytest.raises(RepositoryError, match="a 70%, b 40%"):
        aliasing.set_alias(root, "spam@b", 3, 0.4, FILES_ONLY)
    assert set(aliases(root)) == {"a"}


def test_a_name_for_what_serves_is_just_forgotten(root: Path) -> None:
    aliasing.set_alias(root, "spam@stable", 3, None, FILES_ONLY)
    assert aliasing.remove_alias(root, "spam@stable", FILES_ONLY) == ()
    assert aliases(root) == {}
    assert Repository(root).versions("spam") == [1, 2, 3]


def test_a_canary_goes_with_its_name(root: Path) -> None:
    add_side_model(root, "spam", 4)
    aliasing.set_alias(root, "spam@canary", 4, 0.1, FILES_ONLY)
    assert aliasing.remove_alias(root, "spam@canary", FILES_ONLY) == ("spam.v4",)
    assert not (root / "spam.v4").exists()
    assert aliases(root) == {}


def test_a_pipelines_canary_goes_with_its_members(root: Path) -> None:
    add_pipeline(root, "digits")
    add_side_model(root, "digits_model", 2)
    side = add_side_model(root, "digits", 2)
    (side / "config.pbtxt").write_text(
        'name: "digits.v2" platform: "ensemble" ensemble_scheduling { step { model_name: "digits_model.v2" '
        'model_version: 2 } step { model_name: "digits_preprocess" model_version: -1 } }'
    )
    aliasing.set_alias(root, "digits@canary", 2, None, FILES_ONLY)
    assert set(aliasing.remove_alias(root, "digits@canary", FILES_ONLY)) == {"digits.v2", "digits_model.v2"}
    assert Repository(root).model_names() == ["digits", "digits_model", "digits_preprocess", "spam"]


def test_a_canary_of_two_names_goes_with_the_last(root: Path) -> None:
    add_side_model(root, "spam", 4)
    aliasing.set_alias(root, "spam@canary", 4, None, FILES_ONLY)
    aliasing.set_alias(root, "spam@new", 4, None, FILES_ONLY)
    assert aliasing.remove_alias(root, "spam@canary", FILES_ONLY) == ()
    assert (root / "spam.v4").is_dir()
    assert aliasing.remove_alias(root, "spam@new", FILES_ONLY) == ("spam.v4",)


def test_what_a_killed_removal_left_goes_when_it_is_run_again(root: Path) -> None:
    add_side_model(root, "spam", 4)
    assert aliasing.remove_alias(root, "spam@canary", FILES_ONLY) == ("spam.v4",)
    with pytest.raises(RepositoryError, match="no aliases"):
        aliasing.remove_alias(root, "spam@canary", FILES_ONLY)


def test_states_come_with_the_names_where_a_server_tells(root: Path) -> None:
    aliasing.set_alias(root, "spam@stable", 3, None, FILES_ONLY)
    live = LiveStates("http://x", (ModelState("spam", "3", "READY", ""),))
    assert [n.state for n in aliasing.listed(look(root, live))] == ["READY"]
    assert [n.state for n in aliasing.listed(look(root, LiveStates("http://x", ())))] == ["not loaded"]
    assert [n.state for n in aliasing.listed(look(root))] == [""]


def run(root: Path, *words: str) -> Any:
    return CliRunner().invoke(alias, [*words, "--repository", str(root)], catch_exceptions=False)


def test_the_command_sets_shows_and_removes(root: Path) -> None:
    done = run(root, "spam@stable", "3", "--weight", "0.1")
    assert done.stderr.split()[-5:] == ["spam@stable", "3", "spam", "10%", "-"]
    document = json.loads(run(root, "--json").stdout)
    assert document["aliases"][0]["alias"] == {"model": "spam", "version": 3, "weight": 0.1}
    assert "spam@stable is removed" in run(root, "spam@stable", "--remove").stderr
    assert "no model has an alias" in run(root).stderr
    assert "spam has no alias" in run(root, "spam").stderr


@pytest.mark.parametrize(
    "words",
    [["--remove"], ["--weight", "0.1"], ["spam@a", "3", "--remove"], ["spam@a", "--weight", "1.5"], ["spam@a", "0"]],
)
def test_what_makes_no_sense_is_a_usage_error(root: Path, words: list[str]) -> None:
    assert run(root, *words).exit_code == 2
