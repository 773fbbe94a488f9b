from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.errors import ConchError
from perf.analyzer import binary

WORKS = '#!/bin/sh\necho "Perf Analyzer Version 2.51.0 (commit unknown)" >&2\n'
NEEDS_LIBRARIES = (
    '#!/bin/sh\n[ -n "$LD_LIBRARY_PATH" ] || { echo "libb64.so.0d: cannot open" >&2; exit 127; }\n' + WORKS
)
BROKEN = '#!/bin/sh\necho "GLIBC_2.38 not found" >&2\nexit 1\n'


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No perf_analyzer anywhere, and none remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    binary.find.cache_clear()
    yield
    binary.find.cache_clear()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_one_in_the_path_comes_before_an_installed_one(tmp_path: Path) -> None:
    script(binary.cache_folder(os.environ) / binary.NAME, WORKS)
    due = script(tmp_path / "path" / binary.NAME, WORKS)
    found = binary.find()
    assert (found.path, found.version, found.libraries) == (str(due), "2.51.0", None)


def test_one_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "path" / binary.NAME, BROKEN)
    due = script(binary.cache_folder(os.environ) / binary.NAME, WORKS)
    assert binary.find().path == str(due)


def test_missing_libraries_are_taken_from_the_server(tmp_path: Path) -> None:
    script(tmp_path / "path" / binary.NAME, NEEDS_LIBRARIES)
    found = binary.find()
    assert found.libraries is not None
    assert {path.name for path in found.libraries.iterdir()} == set(binary.LIBRARIES)
    assert all(path.exists() for path in found.libraries.iterdir())
    assert found.environment({"LD_LIBRARY_PATH": "/x"})["LD_LIBRARY_PATH"] == f"{found.libraries}:/x"


def test_without_any_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ConchError, match="not found") as caught:
        binary.find()
    assert "conch perf install" in str(caught.value)


def test_the_reason_of_one_that_does_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binary.VARIABLE, str(script(tmp_path / "mine", BROKEN)))
    with pytest.raises(ConchError) as caught:
        binary.find_or_install()
    assert "GLIBC_2.38 not found" in str(caught.value)


def test_the_named_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "path" / binary.NAME, WORKS)
    due = script(tmp_path / "mine", WORKS)
    monkeypatch.setenv(binary.VARIABLE, str(due))
    assert binary.find().path == str(due)


def test_the_container_sees_the_scratch_folder_and_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = script(tmp_path / "path" / "docker", "#!/bin/sh\n")
    monkeypatch.setenv(binary.VARIABLE, "docker")
    command = binary.find().command(tmp_path)
    assert command[0] == str(docker)
    assert command[-2:] == [binary.IMAGE, binary.NAME]
    assert {"--network=host", f"--volume={tmp_path}:{tmp_path}", "--rm", "--init"} <= set(command)


def test_a_container_needs_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(binary.VARIABLE, "docker")
    with pytest.raises(ConchError, match="no docker"):
        binary.find()
