"""API keys: what a file may say, what a key opens, and that the file holds no secret."""

import json
import logging
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

from conch.errors import ConfigError
from gateway.errors import GatewayError
from gateway.security import guard, keys
from gateway.security.guard import KeyGuard
from gateway.security.keys import Key
from gateway.security.keys_file import read, update
from gateway.security.watched_file import WatchedFile
from gateway.settings import Settings

SHA = keys.digest("conch-reports-secret")
NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def asked(*headers: tuple[str, str]) -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return HTTPConnection({"type": "http", "headers": raw})


def bearer(key: str) -> HTTPConnection:
    return asked(("Authorization", f"Bearer {key}"))


def add(path: Path, name: str, **fields: object) -> str:
    """Put a key into the file; returns its secret."""
    secret = keys.new_secret(name)
    key = Key(name, keys.digest(secret), **fields)  # type: ignore[arg-type]
    update(path, lambda before: (*before, key))
    return secret


def test_a_key_carries_its_name_and_256_random_bits() -> None:
    one, other = keys.new_secret("a-b.c_1"), keys.new_secret("a-b.c_1")
    assert one != other
    assert keys.name_in(one) == "a-b.c_1"
    assert len(one.rpartition("-")[2]) == 64


@pytest.mark.parametrize("text", ["", "sk-something", "conch-", "conch-reports", "Bearer x", "conch--x"])
def test_what_is_no_key_of_ours_has_no_known_name(text: str) -> None:
    assert keys.name_in(text) == ""


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_a_file_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    key = Key(
        "reports",
        SHA,
        frozenset({"infer", "admin"}),
        ("embeddings", "spam*"),
        "600/minute;20/second",
        "100000/day",
        NOW,
        NOW + timedelta(days=1),
        NOW,
    )
    update(tmp_path / name, lambda before: (*before, key, Key("plain", SHA)))
    assert read(tmp_path / name) == (key, Key("plain", SHA))


def test_the_file_holds_no_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "reports")
    assert secret.rpartition("-")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_change_keeps_the_mode_that_the_file_was_given(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    add(path, "one")
    path.chmod(0o640)
    add(path, "two")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir() if "lock" not in p.name] == ["keys.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "list under `keys`"),
        ("[1, 2]", "list under `keys`"),
        ("keys: {a: 1}", "list under `keys`"),
        ("keys: [", "does not parse"),
        ("format: 9\nkeys: []", "another format"),
        ("format: 1\nkeys: [text]", "keys[0]"),
        ("format: 1\nkeys: [{sha256: x}]", "name"),
        ("format: 1\nkeys: [{name: UPPER}]", "name"),
        ("format: 1\nkeys: [{name: a, sha256: abc}]", "sha256"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}, modles: []}}]", "did you mean models?"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}, roles: [root]}}]", "unknown role"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}, models: spam}}]", "models"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}, requests: many}}]", "no limit"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}, expires: soon}}]", "no time"),
        (f"format: 1\nkeys: [{{name: a, sha256: {SHA}}}, {{name: a, sha256: {SHA}}}]", "one name"),
    ],
)
def test_a_bad_file_is_refused_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["2030-01-01", "'2030-01-01'", "2030-01-01T00:00:00Z", "2030-01-01 00:00:00"])
def test_a_time_may_be_written_as_people_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"format: 1\nkeys: [{{name: a, sha256: {SHA}, expires: {text}}}]")
    assert read(path)[0].expires == NOW


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="conch gateway key create"):
        KeyGuard(tmp_path / "none.yaml")


def test_the_right_key_opens_with_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "search", models=("embed*",), requests="5/minute")
    guard = KeyGuard(path)
    caller = guard.caller(bearer(secret))
    assert (caller.key_id, caller.is_admin) == ("search", False)
    assert caller.may_use("embeddings")
    assert caller.may_use("embeddings@canary")
    assert not caller.may_use("spam")
    assert guard.caller(asked(("X-API-Key", secret))) == caller
    assert guard.caller(asked(("authorization", f"bearer {secret}"))) == caller


def test_a_key_without_the_role_asks_no_model(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "operator", roles=frozenset({"admin"}))
    caller = KeyGuard(path).caller(bearer(secret))
    assert caller.is_admin
    assert not caller.may_use("spam")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "conch-search-",
        "conch-search-0000",
        "conch-nobody-0000",
        "sk-0000",
        "conch-search-\xff\xfe",
        "x" * 10_000,
    ],
)
def test_a_wrong_key_opens_nothing(tmp_path: Path, sent: str) -> None:
    path = tmp_path / "keys.yaml"
    add(path, "search")
    with pytest.raises(GatewayError) as caught:
        KeyGuard(path).caller(bearer(sent))
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == "Bearer"


def test_another_keys_secret_does_not_open_under_this_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    one = add(path, "one")
    add(path, "two")
    with pytest.raises(GatewayError, match="not known"):
        KeyGuard(path).caller(bearer(one.replace("-one-", "-two-")))


def test_no_key_at_all_is_refused_and_told_how_to_send_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    add(path, "search")
    with pytest.raises(GatewayError, match="no API key") as caught:
        KeyGuard(path).caller(asked())
    assert "Authorization" in caught.value.message


@pytest.mark.parametrize(("field", "said"), [("revoked", "revoked"), ("expires", "good until")])
def test_a_key_that_is_over_says_so(tmp_path: Path, field: str, said: str) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "search", **{field: keys.utc_now() - timedelta(seconds=1)})
    with pytest.raises(GatewayError, match=said) as caught:
        KeyGuard(path).caller(bearer(secret))
    assert caught.value.status == 401


def test_a_key_that_expires_later_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "search", expires=keys.utc_now() + timedelta(days=1))
    assert KeyGuard(path).caller(bearer(secret)).key_id == "search"


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_gateway_that_is_open_to_everybody_says_so(caplog: pytest.LogCaptureFixture, host: str, warned: bool) -> None:
    with caplog.at_level(logging.WARNING, logger="conch.gateway"):
        guard.build(Settings(host=host))
    assert ("may ask every model" in caplog.text) is warned


class Watched:
    """A guard whose clock a test turns, so that it looks at the file at once."""

    def __init__(self, path: Path) -> None:
        self.now_s = 0.0
        self.guard = KeyGuard(path)
        self.guard._file = WatchedFile(path, clock=lambda: self.now_s)

    def caller(self, secret: str) -> str:
        self.now_s += 2
        return self.guard.caller(bearer(secret)).key_id


def test_keys_come_and_go_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    one = add(path, "one")
    watched = Watched(path)
    two = add(path, "two")
    assert watched.caller(two) == "two"
    update(path, lambda before: tuple(k for k in before if k.name != "one"))
    with pytest.raises(GatewayError, match="not known"):
        watched.caller(one)


@pytest.mark.parametrize("bad", [b"keys: [", b"format: 1\nkeys: [{name: a}]", b"\xff\xfe\x00", None])
def test_a_file_that_goes_bad_leaves_the_old_keys_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: bytes | None
) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "one")
    watched = Watched(path)
    path.unlink() if bad is None else path.write_bytes(bad)
    with caplog.at_level(logging.INFO, logger="conch.gateway"):
        assert watched.caller(secret) == "one"
        assert watched.caller(secret) == "one"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the keys stay as they were" in caplog.text
    assert str(path) in caplog.text


def test_a_file_that_is_mended_counts_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    secret = add(path, "one")
    good = path.read_bytes()
    watched = Watched(path)
    path.write_text("keys: [")
    assert watched.caller(secret) == "one"
    path.write_bytes(good)
    two = add(path, "two")
    assert watched.caller(two) == "two"


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    now_s = 0.0
    watched = WatchedFile(path, clock=lambda: now_s)
    path.write_text("22")
    now_s = 0.9
    assert not watched.changed()
    now_s = 1.1
    assert watched.changed()
    assert not watched.changed()


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be written"):
        update(tmp_path / "no" / "keys.yaml", lambda before: before)


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add(path, "one")
    before = path.read_bytes()

    def fail(found: tuple[Key, ...]) -> tuple[Key, ...]:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        update(path, fail)
    assert path.read_bytes() == before
    assert json.loads(before)["keys"][0]["name"] == "one"
    assert len(os.listdir(tmp_path)) == 2  # the file and its lock
