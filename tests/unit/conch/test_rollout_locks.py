"""One publish of a model at a time, one switch in a repository at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conch.switching import locks

HOLD = """
import sys
from pathlib import Path
from conch.switching import locks
with locks.models(Path(sys.argv[1]), ["m"], "rollback"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_is_first(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(locks.Busy, match=rf"a rollback of m runs already \(pid {first.pid}\)"),
            locks.models(tmp_path, ["other", "m"]),
        ):
            raise AssertionError("both held it")
        with locks.models(tmp_path, ["other"]):
            pass
    finally:
        first.stdin.close()
        first.wait(30)
        first.stdout.close()
    with locks.models(tmp_path, ["m"]):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    first.kill()
    first.wait(30)
    first.stdin.close()
    first.stdout.close()
    with locks.models(tmp_path, ["m"]):
        pass


def test_who_holds_a_lock_may_take_it_again(tmp_path: Path) -> None:
    with locks.models(tmp_path, ["m"]), locks.models(tmp_path, ["m"]), locks.repository(tmp_path):
        with locks.repository(tmp_path):
            pass
        with locks.models(tmp_path, ["m", "n"]):
            pass
