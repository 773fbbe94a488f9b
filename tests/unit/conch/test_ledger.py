import json
import multiprocessing
from pathlib import Path

import pytest

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias, Held, Ledger, Served

LEDGER = Ledger(
    aliases={"spam": {"stable": Alias("spam", 3)}, "digits": {"canary": Alias("digits.v4", 4, weight=0.1)}},
    history={"spam": (Served(2, "2026-01-02T03:04:05+00:00", "publish"), Served(3, "2026-01-03T03:04:05+00:00", "한"))},
    held={"spam": Held(3, "version_policy { latest { num_versions: 2 } }")},
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "model_repository"
    root.mkdir()
    return root


def test_a_repository_without_the_file_remembers_nothing(root: Path) -> None:
    assert ledger.read(root) == Ledger()
    assert list(root.iterdir()) == []


def test_what_is_written_comes_back(root: Path) -> None:
    assert ledger.update(root, lambda _: LEDGER) == LEDGER
    assert ledger.read(root) == LEDGER
    assert [p.name for p in root.iterdir()] == ["conch.json"]


def test_a_change_that_changes_nothing_does_not_touch_the_file(root: Path) -> None:
    ledger.update(root, lambda _: LEDGER)
    before = (root / "conch.json").stat().st_ino
    ledger.update(root, lambda known: known)
    assert (root / "conch.json").stat().st_ino == before


def test_a_change_that_fails_leaves_the_file_as_it_was(root: Path) -> None:
    ledger.update(root, lambda _: LEDGER)
    with pytest.raises(RepositoryError, match="no name for an alias"):
        ledger.update(root, lambda known: known.with_alias("spam", "4", Alias("spam", 4)))
    assert ledger.read(root) == LEDGER


def _serve_many(root: Path, writer: int, count: int) -> None:
    for turn in range(count):
        line = Served(1 + writer + 4 * turn, "", str(writer))
        ledger.update(root, lambda known, line=line: known.with_served("spam", line))


def test_writers_at_once_lose_nothing(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_serve_many, args=(root, w, 10)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0] * 4
    assert sorted(s.version for s in ledger.read(root).history["spam"]) == list(range(1, 41))


def test_an_alias_is_set_and_removed() -> None:
    known = LEDGER.with_alias("spam", "old", Alias("spam", 2, 0.5))
    assert known.aliases["spam"] == {"stable": Alias("spam", 3), "old": Alias("spam", 2, 0.5)}
    assert known.with_alias("spam", "old", None) == LEDGER
    assert "digits" not in LEDGER.with_alias("digits", "canary", None).aliases


@pytest.mark.parametrize("name", ["3", "", "a b", "-x", "a@b"])
def test_what_reads_as_something_else_is_no_alias(name: str) -> None:
    with pytest.raises(RepositoryError, match="no name for an alias"):
        Ledger().with_alias("spam", name, Alias("spam", 1))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(RepositoryError, match="0 to 1"):
        Ledger().with_alias("spam", "canary", Alias("spam.v2", 2, weight))


def test_history_notes_changes_only_and_forgets_the_oldest() -> None:
    known = Ledger().with_served("m", Served(1, "a", "x")).with_served("m", Served(1, "b", "y"))
    assert known.history == {"m": (Served(1, "a", "x"),)}
    full = Ledger(history={"m": tuple(Served(v, "", "") for v in range(ledger.HISTORY_LENGTH))})
    lines = full.with_served("m", Served(1000, "", "")).history["m"]
    assert (len(lines), lines[0].version, lines[-1].version) == (ledger.HISTORY_LENGTH, 1, 1000)


def test_a_model_is_held_and_let_go() -> None:
    assert LEDGER.with_held("spam", Held(2, "")).held == {"spam": Held(2, "")}
    assert LEDGER.with_held("spam", None).held == {}


def test_an_alias_is_resolved() -> None:
    assert ledger.resolve(LEDGER, "spam@stable") == Alias("spam", 3)
    assert ledger.resolve(LEDGER, "digits@canary") == Alias("digits.v4", 4, 0.1)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("spam@stabel", "did you mean spam@stable?"),
        ("spma@stable", "did you mean spam@stable?"),
        ("spam@canary", "conch repo alias spam@canary VERSION"),
        ("embeddings@stable", "conch repo alias embeddings@stable VERSION"),
        ("spam", "MODEL@ALIAS"),
        ("@stable", "MODEL@ALIAS"),
        ("spam@", "MODEL@ALIAS"),
    ],
)
def test_an_unknown_alias_is_named_with_what_to_do(text: str, fix: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        ledger.resolve(LEDGER, text)
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"format": 1}),
        json.dumps({"format": 1, "aliases": {"m": {"a": {"x": 1}}}, "history": {}, "held": {}}),
        json.dumps({"format": 1, "aliases": 3, "history": {}, "held": {}}),
    ],
)
def test_a_broken_file_is_an_error_and_stays(root: Path, text: str) -> None:
    (root / "conch.json").write_text(text)
    with pytest.raises(RepositoryError, match="cannot be read"):
        ledger.update(root, lambda _: LEDGER)
    assert (root / "conch.json").read_text() == text


def test_a_newer_format_is_refused(root: Path) -> None:
    (root / "conch.json").write_text('{"format": 2}')
    with pytest.raises(RepositoryError, match="format that this conch does not know"):
        ledger.read(root)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="could not be written"):
        ledger.update(tmp_path / "nowhere" / "model_repository", lambda _: LEDGER)
