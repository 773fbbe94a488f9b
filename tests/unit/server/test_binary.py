"""The embedded server's parts are found and put together; what is missing is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from conch.errors import ServerError
from server import binary


@pytest.fixture
def installation(tmp_path: Path) -> binary.Installation:
    """A small imitation of the wheel, with stubs of two versions and no run bits."""
    root = tmp_path / "tritonserver"
    backend = root / "backends" / "python"
    (backend / "__pycache__").mkdir(parents=True)
    (backend / "libtriton_python.so").write_bytes(b"so")
    (backend / "triton_python_backend_utils.py").write_text("")
    for version in ("3.9", binary.python_version()):
        (root / "python_backend_stubs" / version).mkdir(parents=True)
        (root / "python_backend_stubs" / version / binary.STUB).write_bytes(b"stub")
        (root / "python_backend_stubs" / version / binary.STUB).chmod(0o644)
    return binary.Installation(root, tmp_path / "libs")


def test_the_backend_directory_is_complete_and_the_stub_can_run(
    installation: binary.Installation, tmp_path: Path
) -> None:
    folder = binary.assemble(installation, tmp_path / "backends")
    python = folder / "python"
    assert sorted(p.name for p in python.iterdir()) == [
        "libtriton_python.so",
        binary.STUB,
        "triton_python_backend_utils.py",
    ]
    assert os.access(python / binary.STUB, os.X_OK)
    stand_ins = {p.parent.name for p in binary.STAND_INS.glob("*/model.py")}
    assert {p.name for p in folder.iterdir()} == {"python"} | stand_ins


def test_a_python_without_a_stub_is_named(
    installation: binary.Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "python_version", lambda: "3.99")
    with pytest.raises(ServerError, match=r"cannot run Python 3\.99") as raised:
        binary.assemble(installation, tmp_path / "backends")
    assert "3.9" in str(raised.value.expected)


def test_a_folder_that_cannot_hold_programs_is_named(
    installation: binary.Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[8] |= os.ST_NOEXEC
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    with pytest.raises(ServerError, match="temporary files") as raised:
        binary.assemble(installation, tmp_path / "backends")
    assert "TMPDIR" in str(raised.value.fix)


def test_stub_versions_are_in_the_order_of_numbers(installation: binary.Installation) -> None:
    assert installation.stub_versions()[0] == "3.9"


def test_the_environment_names_our_libraries_and_our_python_first(installation: binary.Installation) -> None:
    base = {"LD_LIBRARY_PATH": "/theirs", "PATH": "/usr/bin", "HOME": "/h"}
    made = binary.environment(installation, base)
    libraries = made["LD_LIBRARY_PATH"].split(":")
    assert libraries[0] == str(installation.libraries)
    assert libraries[-1] == "/theirs"
    assert made["PATH"] == f"{sys.prefix}/bin:/usr/bin"
    assert made["HOME"] == "/h"


def test_no_empty_entry_in_the_library_path(installation: binary.Installation) -> None:
    assert "" not in binary.environment(installation, {})["LD_LIBRARY_PATH"].split(":")


def test_this_environment_is_whole() -> None:
    binary.check_environment()
    found = binary.find()
    assert os.access(found.binary, os.X_OK)
    assert found.stub(binary.python_version()).is_file()


def test_numpy_2_is_refused_before_it_can_answer_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.0")
    with pytest.raises(ServerError, match="numpy 2") as raised:
        binary.check_environment()
    assert raised.value.fix == "pip install 'numpy>=1.26,<2'"


def test_a_missing_libpython_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "find_libpython", lambda: None)
    with pytest.raises(ServerError, match="shared library of Python"):
        binary.check_environment()
