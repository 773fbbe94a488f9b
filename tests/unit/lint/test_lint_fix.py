import threading
from pathlib import Path

import pytest

from conch.lint import LintOptions, off
from conch.lint.fix import fix
from conch.repository import PYCACHE_GUARD, Repository
from conch.switching import locks
from tests.fakes.lint_repositories import ONNX_CONFIG, PYTHON_CONFIG, onnx_model, python_model, write

OTHER = ONNX_CONFIG.replace("NAME", "other")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_sound_repository_is_not_touched(root: Path) -> None:
    config = onnx_model(root) / "config.pbtxt"
    before = config.stat()
    report = fix(root)
    assert (report.mended, report.not_mended) == ((), ())
    assert config.stat() == before
    assert [p.name for p in root.parent.iterdir()] == ["models"]


def test_several_faults_of_one_config_are_mended_in_one_replacement(root: Path) -> None:
    config = OTHER.replace("TYPE_FP32 dims: [ 4 ]", "TYPE_INT8 dims: [ -1, 4 ]")
    path = onnx_model(root, config=config) / "config.pbtxt"
    before = path.stat()
    report = fix(root)
    assert sorted(m.rules for m in report.mended) == [("R05",), ("R10",), ("R13",)]
    assert report.after.findings == ()
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    assert path.read_text() == ONNX_CONFIG.replace("NAME", "m").replace("[ 4 ]", "[4]")


def test_a_mend_may_uncover_the_next(root: Path) -> None:
    # While the version is named 01, Triton serves none, and its file is not held against the config.
    onnx_model(root, config=ONNX_CONFIG.replace('"x"', '"xs"'), versions=("01",))
    report = fix(root)
    assert [m.rules for m in report.mended] == [("R02",), ("R13",)]
    assert report.after.findings == ()


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(root: Path) -> None:
    model = onnx_model(root)
    real = write(root.parent, {"configs/m.pbtxt": OTHER}) / "configs/m.pbtxt"
    real.chmod(0o640)
    (model / "config.pbtxt").unlink()
    (model / "config.pbtxt").symlink_to(real)
    assert fix(root).after.findings == ()
    assert (model / "config.pbtxt").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640


def test_what_is_switched_off_is_not_mended(root: Path) -> None:
    onnx_model(root, config=OTHER)
    before = tree(root)
    report = fix(root, LintOptions(off=(off("R05", "it is renamed at deployment"),)))
    assert (report.mended, tree(root)) == ((), before)


def test_only_the_chosen_model_is_mended(root: Path) -> None:
    onnx_model(root, config=OTHER)
    onnx_model(root, "n", config=OTHER)
    fix(root / "n")
    assert (root / "m/config.pbtxt").read_text() == OTHER
    assert 'name: "n"' in (root / "n/config.pbtxt").read_text()


def test_a_model_that_is_being_published_is_left_alone(root: Path) -> None:
    onnx_model(root, config=OTHER)
    onnx_model(root, "n", config=OTHER)
    staging = Repository(root).staging
    taken, done = threading.Event(), threading.Event()

    def publish() -> None:
        with locks.models(staging, ["m"]):
            taken.set()
            done.wait(30)

    staging.mkdir()
    other = threading.Thread(target=publish)
    other.start()
    try:
        assert taken.wait(30)
        report = fix(root)
    finally:
        done.set()
        other.join()
    assert [(n.finding.model, n.reason.startswith("a publish of m runs already")) for n in report.not_mended] == [
        ("m", True)
    ]
    assert [f.model for f in report.after.findings] == ["m"]
    assert (root / "m/config.pbtxt").read_text() == OTHER


@pytest.mark.parametrize("content", [None, "x"])
def test_a_rename_never_replaces(root: Path, content: str | None) -> None:
    model = onnx_model(root, versions=("1", "02"))
    write(model, {"2": content})
    before = tree(root)
    report = fix(root)
    assert report.mended == ()
    assert tree(root) == before


def test_bytecode_makes_way_for_the_guard(root: Path) -> None:
    model = python_model(root)
    (model / "1" / PYCACHE_GUARD).unlink()
    write(model, {f"1/{PYCACHE_GUARD}/model.cpython-311.pyc": b"x"})
    report = fix(root)
    assert [m.rules for m in report.mended] == [("R37",)]
    assert (model / "1" / PYCACHE_GUARD).is_file()
    assert report.after.findings == ()


def test_a_folder_of_that_name_with_other_files_is_left_alone(root: Path) -> None:
    model = python_model(root)
    (model / "1" / PYCACHE_GUARD).unlink()
    write(model, {f"1/{PYCACHE_GUARD}/notes.txt": "mine"})
    report = fix(root)
    assert [(n.finding.rule, n.reason) for n in report.not_mended] == [("R37", "the folder holds more than bytecode")]
    assert (model / "1" / PYCACHE_GUARD / "notes.txt").read_text() == "mine"


def test_a_config_that_lists_nothing_is_mended_with_comments(root: Path) -> None:
    config = "# of the team\n" + PYTHON_CONFIG.replace("NAME", "other").replace(
        "instance_group { count: 1 kind: KIND_CPU }", "instance_group {\n  # fast\n  kind: KIND_GPU\n}"
    )
    model = python_model(root, config=config)
    report = fix(root, LintOptions(gpu=False))
    assert sorted(m.rules for m in report.mended) == [("R05",), ("R25",)]
    assert all(m.comments_kept for m in report.mended)
    assert report.after.findings == ()
    text = (model / "config.pbtxt").read_text()
    assert "# of the team" in text
    assert "  # fast\n" in text
