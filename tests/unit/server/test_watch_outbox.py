"""What arrives in an outbox is taken when it is whole, put away with a report, and never lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conch.errors import ConchError, RepositoryError, ServerUnavailable
from conch.switching.locks import Busy
from server.rollout.publish import Published, PublishError, PublishOptions
from server.rollout.watch_outbox import Watch, arrivals, follow, is_whole, last_change


@dataclass
class Publisher:
    """Stands in for a publish: remembers what it was given, and fails as it is told to."""

    failure: Exception | None = None
    given: list[tuple[str, str | None]] = field(default_factory=list)

    def __call__(self, source: Path, options: PublishOptions) -> Published:
        assert source.exists()
        self.given.append((source.name, options.as_name))
        if self.failure is not None:
            raise self.failure
        return Published(options.as_name or "", 2, "published", options.as_name or "")


def drop(outbox: Path, path: str, *, age_s: float = 100.0) -> Path:
    target = outbox / path
    if target.suffix == ".onnx":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"onnx")
    else:
        target.mkdir(parents=True)
        (target / "model.py").write_text("code")
    return target


def look(outbox: Path, publish: Publisher, settle_s: float = 0.0, marker: str | None = None) -> int:
    return follow(Watch(outbox, settle_s, marker), PublishOptions(outbox.parent / "models"), once=True, publish=publish)


def reports(folder: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in sorted(folder.rglob("*.report.json"))]


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


def test_what_arrives_is_published_and_put_away(outbox: Path) -> None:
    drop(outbox, "spam.onnx")
    drop(outbox, "digits/run17")
    drop(outbox, "digits/run18.onnx")
    publish = Publisher()
    assert look(outbox, publish) == 0
    assert sorted(publish.given) == [("run17", "digits"), ("run18.onnx", "digits"), ("spam.onnx", "spam")]
    assert (outbox / ".published" / "digits" / "run17" / "model.py").is_file()
    assert (outbox / ".published" / "spam" / "spam.onnx").is_file()
    assert [r["outcome"] for r in reports(outbox / ".published")] == ["published"] * 3
    assert list(arrivals(outbox)) == []


def test_one_that_fails_is_put_away_with_the_reason_and_the_others_go_on(outbox: Path) -> None:
    drop(outbox, "spam/run1")
    publish = Publisher(PublishError("spam was not published: lint: wrong", got="this", fix="mend it"))
    assert look(outbox, publish) == 1
    [report] = reports(outbox / ".failed")
    assert (report["error"], report["got"], report["fix"]) == ("spam was not published: lint: wrong", "this", "mend it")
    drop(outbox, "spam/run2")
    assert look(outbox, Publisher()) == 0
    assert (outbox / ".published" / "spam" / "run2").is_dir()


def test_an_error_that_nobody_foresaw_ends_nothing(outbox: Path) -> None:
    drop(outbox, "spam/run1")
    assert look(outbox, Publisher(ZeroDivisionError("what"))) == 1
    assert "ZeroDivisionError" in str(reports(outbox / ".failed")[0]["error"])


@pytest.mark.parametrize(
    "failure",
    [Busy("a publish of spam runs already"), ServerUnavailable("no Triton server answers")],
    ids=["busy", "away"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_nobodys_fault_stays_for_later(failure: ConchError, wrapped: bool, outbox: Path) -> None:
    path = drop(outbox, "spam/run1")
    if wrapped:
        outer = PublishError("spam was not published")
        outer.__cause__ = failure
        failure = outer
    assert look(outbox, Publisher(failure)) == 0
    assert path.is_dir()
    assert not (outbox / ".failed").exists()


def test_two_arrivals_of_one_name_are_both_kept(outbox: Path) -> None:
    drop(outbox, "spam.onnx")
    look(outbox, Publisher())
    drop(outbox, "spam.onnx")
    look(outbox, Publisher())
    assert len(reports(outbox / ".published")) == 2
    assert len(list((outbox / ".published" / "spam").glob("*.onnx"))) == 2


@pytest.mark.parametrize("path", [".hidden.onnx", "spam.onnx.part", "spam/.run1", "spam/run1.tmp", "readme.txt"])
def test_what_is_on_its_way_or_nothing_of_ours_is_left_alone(path: str, outbox: Path) -> None:
    target = outbox / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"half")
    assert list(arrivals(outbox)) == []
    assert look(outbox, Publisher()) == 0
    assert target.is_file()


def test_it_is_whole_when_nothing_changed_for_a_while(outbox: Path) -> None:
    path = drop(outbox, "spam/run1")
    changed = last_change(path)
    assert changed is not None
    assert not is_whole(path, Watch(outbox, 5.0), changed + 4.9)
    assert is_whole(path, Watch(outbox, 5.0), changed + 5.0)


def test_a_file_that_pretends_to_be_old_is_not_at_rest(outbox: Path) -> None:
    """Copies with `cp -p` or rsync bring old times along while the next file is still on its way."""
    path = drop(outbox, "spam/run1")
    os.utime(path / "model.py", (0, 0))
    os.utime(path, (0, 0))
    assert not is_whole(path, Watch(outbox, 5.0), time.time() + 1.0)


def test_a_folder_that_was_renamed_in_is_at_rest(outbox: Path, tmp_path: Path) -> None:
    path = drop(tmp_path, "elsewhere")
    written = last_change(path)
    time.sleep(0.05)
    (outbox / "spam").mkdir(parents=True)
    os.rename(path, outbox / "spam" / "run1")
    assert last_change(outbox / "spam" / "run1") == written


def _mark(path: Path) -> None:
    (path / "_SUCCESS").touch()


@pytest.mark.parametrize(
    ("prepare", "marker", "whole"),
    [
        pytest.param(_mark, None, True, id="a-usual-marker"),
        pytest.param(_mark, "_SUCCESS", True, id="the-marker"),
        pytest.param(_mark, "READY", False, id="another-marker"),
        pytest.param(lambda path: None, "_SUCCESS", False, id="no-marker"),
    ],
)
def test_a_marker_decides(prepare: Callable[[Path], None], marker: str | None, whole: bool, outbox: Path) -> None:
    path = drop(outbox, "spam/run1")
    prepare(path)
    later = time.time() + (1e6 if not whole else 0.0)
    assert is_whole(path, Watch(outbox, 5.0, marker), later) is whole


def test_an_empty_folder_is_not_whole(outbox: Path) -> None:
    (outbox / "spam" / "run1").mkdir(parents=True)
    assert not is_whole(outbox / "spam" / "run1", Watch(outbox, 0.0), time.time() + 1e6)


def test_one_watcher_is_enough(outbox: Path) -> None:
    def nested(source: Path, options: PublishOptions) -> Published:
        with pytest.raises(RepositoryError, match="somebody else watches"):
            look(outbox, Publisher())
        return Publisher()(source, options)

    drop(outbox, "spam.onnx")
    watch = Watch(outbox, 0.0)
    assert follow(watch, PublishOptions(outbox.parent / "models"), once=True, publish=nested) == 0


def test_ctrl_c_leaves_what_was_not_published_in_place(outbox: Path) -> None:
    path = drop(outbox, "spam/run1")
    assert look(outbox, Publisher(KeyboardInterrupt())) == 0  # type: ignore[arg-type]
    assert path.is_dir()
