"""`conch gateway key create|list|revoke`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conch.errors import ConchError
from gateway.security import keys
from gateway.security.keys_cli import key
from gateway.security.keys_file import read


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key, list(arguments), catch_exceptions=False)


def test_create_prints_the_key_on_stdout_and_keeps_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    done = run("create", "search", "--keys", str(path), "--model", "embed*", "--requests", "600/minute", "--days", "3")
    secret = done.stdout.strip()
    (found,) = read(path)
    assert done.exit_code == 0
    assert found.sha256 == keys.digest(secret)
    assert (found.models, found.requests, found.roles) == (("embed*",), "600/minute", frozenset({"infer"}))
    assert found.created is not None
    assert found.expires is not None
    assert (found.expires - found.created).days == 3


def test_create_prints_one_document_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    document = json.loads(run("create", "a", "--role", "admin", "--json", "--keys", str(path)).stdout)
    assert document["name"] == "a"
    assert keys.digest(document["key"]) == read(path)[0].sha256


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Search",), "no name for a key"),
        (("../x",), "no name for a key"),
        (("a", "--requests", "many"), "no limit"),
        (("a", "--tokens", "10"), "no limit"),
        (("taken",), "already"),
    ],
)
def test_create_refuses_what_makes_no_key(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    path = tmp_path / "keys.yaml"
    run("create", "taken", "--keys", str(path))
    with pytest.raises(ConchError, match=said):
        run("create", *arguments, "--keys", str(path))
    assert [k.name for k in read(path)] == ["taken"]


def test_a_revoked_key_keeps_its_name(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.yaml")
    run("create", "search", "--keys", path)
    assert run("revoke", "search", "--keys", path).exit_code == 0
    first = read(Path(path))[0].revoked
    assert first is not None
    run("revoke", "search", "--keys", path)
    assert read(Path(path))[0].revoked == first
    with pytest.raises(ConchError, match="already"):
        run("create", "search", "--keys", path)


def test_revoking_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.yaml")
    run("create", "search", "--keys", path)
    with pytest.raises(ConchError, match="did you mean search"):
        run("revoke", "serach", "--keys", path)


def test_revoking_without_a_file_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConchError, match="no keys file"):
        run("revoke", "search", "--keys", str(tmp_path / "keys.yaml"))
    assert list(tmp_path.iterdir()) == []


def test_list_shows_rights_and_states_but_no_hash(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.yaml")
    run("create", "search", "--keys", path, "--model", "embed*")
    run("create", "old", "--keys", path)
    run("revoke", "old", "--keys", path)
    document = json.loads(run("list", "--json", "--keys", path).stdout)
    assert [k["name"] for k in document["keys"]] == ["search", "old"]
    assert document["keys"][0]["models"] == ["embed*"]
    assert document["keys"][0]["state"] == "good"
    assert document["keys"][1]["state"].startswith("revoked")
    assert all("sha256" not in k for k in document["keys"])
    shown = run("list", "--keys", path)
    assert shown.stdout == ""
    assert "embed*" in shown.stderr
