"""Each check of the doctor, on machines that are well and machines that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from server import doctor
from server.cli import doctor as command
from server.doctor import FAILURE, OK, WARNING, Check

STUBS = ["3.10", "3.11", "3.12"]


@pytest.mark.parametrize(
    ("check", "level"),
    [
        (doctor.check_glibc("2.35"), OK),
        (doctor.check_glibc("2.36"), OK),
        (doctor.check_glibc("2.31"), FAILURE),
        (doctor.check_glibc("2.4"), FAILURE),
        (doctor.check_glibc(""), FAILURE),
        (doctor.check_python("3.11", STUBS), OK),
        (doctor.check_python("3.14", STUBS), FAILURE),
        (doctor.check_libpython(Path("/usr/lib/libpython3.11.so.1.0"), "3.11"), OK),
        (doctor.check_libpython(None, "3.11"), FAILURE),
        (doctor.check_numpy("1.26.4"), OK),
        (doctor.check_numpy("2.0.0"), FAILURE),
        (doctor.check_numpy(None), FAILURE),
        (doctor.check_server("0.7.0", None), OK),
        (doctor.check_server("0.8.0", None), WARNING),
        (doctor.check_server("0.7.0", "libz.so: cannot open shared object file"), FAILURE),
        (doctor.check_server(None, None), FAILURE),
        (doctor.check_port("HTTP", 8000, free=True, triton=False), OK),
        (doctor.check_port("HTTP", 8000, free=False, triton=True), OK),
        (doctor.check_port("HTTP", 8000, free=False, triton=False), WARNING),
        (doctor.check_shared_memory(1 << 30), OK),
        (doctor.check_shared_memory(100 << 20), WARNING),
        (doctor.check_shared_memory(1 << 20), FAILURE),
        (doctor.check_gpu([], ["CPUExecutionProvider"]), OK),
        (doctor.check_gpu(["H200"], ["CUDAExecutionProvider"]), OK),
        (doctor.check_gpu(["H200"], ["CPUExecutionProvider"]), WARNING),
        (doctor.check_docker("28", "28", None), OK),
        (doctor.check_docker("28", None, "Cannot connect"), WARNING),
        (doctor.check_docker(None, None, None), WARNING),
    ],
)
def test_a_check(check: Check, level: str) -> None:
    assert check.level == level
    assert check.found
    assert (check.fix is None) == (level == OK)


def test_the_missing_python3_of_an_environment(tmp_path: Path) -> None:
    assert doctor.check_python_on_path(tmp_path / "python3").level == FAILURE
    (tmp_path / "python3").touch()
    assert doctor.check_python_on_path(tmp_path / "python3").level == OK


def test_both_builds_of_onnxruntime_are_a_failure() -> None:
    checks = doctor.check_packages({"onnxruntime": "1.31", "onnxruntime-gpu": "1.31", "torch": None})
    assert [c.level for c in checks] == [OK, OK, FAILURE]


def test_no_onnxruntime_is_a_warning() -> None:
    assert doctor.check_packages({"onnxruntime": None, "onnxruntime-gpu": None})[-1].level == WARNING


def test_examining_this_machine_gives_each_check_once() -> None:
    names = [c.name for c in doctor.examine()]
    assert {"glibc", "python", "libpython", "numpy", "embedded server", "/dev/shm", "gpu", "docker"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (WARNING, 0), (FAILURE, 1)])
def test_the_exit_code_follows_the_failures(monkeypatch: pytest.MonkeyPatch, level: str, code: int) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Check("glibc", level, "2.31", "use another system")])
    result = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    assert result.return_value == code
    document = json.loads(result.stdout)
    assert document["ok"] is (code == 0)
    assert document["checks"] == [{"name": "glibc", "level": level, "found": "2.31", "fix": "use another system"}]


def test_the_table_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Check("onnxruntime", FAILURE, "none", "pip install '.[server]'")])
    assert command.main([], standalone_mode=False) == 1
    assert "pip install '.[server]'" in capfd.readouterr().err
