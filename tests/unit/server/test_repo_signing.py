import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch.errors import RepositoryError
from server.repo_view.signing_cli import keygen, sign, verify
from tests.fakes.written_versions import CONFIG, add_pipeline, add_versions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "model_repository"
    add_pipeline(root, count=2)
    return root


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "models.key"
    assert CliRunner().invoke(keygen, [str(path)]).exit_code == 0
    return str(path)


def run(command: Any, *words: str) -> Any:
    return CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)


def checks(root: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = run(verify, *words, "--json", "--repository", str(root))
    return done.return_value, json.loads(done.stdout)


def test_all_parts_of_a_pipeline_are_signed(root: Path, key: str) -> None:
    run(sign, "digits", "--key", key, "--repository", str(root))
    signed = sorted(p.relative_to(root).as_posix() for p in root.rglob("manifest.sig"))
    assert signed == [f"{n}/2/manifest.sig" for n in ("digits", "digits_model", "digits_preprocess")]
    assert checks(root, "digits", "--version", "2", "--key", f"{key}.pub")[0] == 0


def test_an_unsigned_version_fails_where_a_key_is_asked_for(root: Path, key: str) -> None:
    run(sign, "digits", "--key", key, "--repository", str(root))
    code, document = checks(root, "--key", f"{key}.pub")
    assert code == 1
    assert {(v["version"], v["signature"], v["ok"]) for v in document["versions"]} == {
        (1, "not signed", False),
        (2, "ok", True),
    }


def test_without_a_key_the_files_alone_are_checked(root: Path) -> None:
    add_versions(root, ["hand"], by_hand=True)
    assert checks(root)[0] == 0
    (root / "digits_model" / "1" / "model.py").write_text("raise SystemExit\n")
    code, document = checks(root)
    assert code == 1
    bad = [(v["model"], v["version"], v["files"]) for v in document["versions"] if not v["ok"]]
    assert bad == [("digits_model", 1, "the version's files are not those of its manifest: changed: model.py")]


def test_a_part_that_differs_leaves_all_unsigned(root: Path, key: str) -> None:
    (root / "digits_model" / "2" / "model.py").write_text("raise SystemExit\n")
    with pytest.raises(RepositoryError, match="not those of its manifest"):
        run(sign, "digits", "--key", key, "--repository", str(root))
    assert list(root.rglob("manifest.sig")) == []


def test_a_key_that_is_none_is_one_error(root: Path, key: str) -> None:
    with pytest.raises(RepositoryError, match="no public key"):
        run(verify, "--key", key, "--repository", str(root))


def test_a_config_that_is_not_the_versions_own_is_a_warning(root: Path) -> None:
    add_versions(root, ["spam"])
    path = root / "spam" / "config.pbtxt"
    path.write_text(path.read_text() + "version_policy { all { } }")
    assert checks(root, "spam")[1]["warnings"] == []
    path.write_text(CONFIG + "instance_group { count: 4 }")
    code, document = checks(root, "spam")
    assert code == 0
    assert document["warnings"] == ["spam: config.pbtxt is not the one that version 1 was made for"]


def test_people_see_a_table_and_a_count(root: Path, key: str) -> None:
    done = run(verify, "digits", "--version", "1", "--key", f"{key}.pub", "--repository", str(root))
    assert done.return_value == 1
    assert done.stderr.splitlines()[-1] == "3 versions, 3 of them not as they should be"
