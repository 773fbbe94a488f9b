import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conch.lint import LintOptions, check
from conch.lint.fix import fix
from conch.lint.model import VersionFolder
from conch.manifest import Manifest, digest_files
from tests.fakes.lint_repositories import ONNX_CONFIG, PYTHON_CONFIG, findings, found, onnx_model, python_model, write

POLICY = "version_policy { specific { versions: [ %s ] } }\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def publish(model: Path, version: str = "1") -> None:
    folder = model / version
    Manifest(model.name, "2026-01-01", {}, digest_files(folder), "").write(folder)


def published(root: Path) -> Path:
    model = onnx_model(root)
    write(model, {"1/labels.txt": "ham\nspam\n"})
    publish(model)
    return model


def broken_config(root: Path) -> None:
    onnx_model(root, config='name: "NAME"\nmax_batch: 8\n')


def garbage_config(root: Path) -> None:
    write(onnx_model(root), {"config.pbtxt": bytes(range(256)) * 4})


def endless_config(root: Path) -> None:
    write(onnx_model(root), {"config.pbtxt": "model_warmup { inputs { " * 3000})


def piped_config(root: Path) -> None:
    model = onnx_model(root)
    (model / "config.pbtxt").unlink()
    os.mkfifo(model / "config.pbtxt")


def no_file(root: Path) -> None:
    (onnx_model(root) / "1/model.onnx").unlink()


def no_python_file(root: Path) -> None:
    (python_model(root) / "1/model.py").unlink()


def empty_file(root: Path) -> None:
    write(onnx_model(root), {"1/model.onnx": b""})


def garbage_file(root: Path) -> None:
    write(onnx_model(root), {"1/model.onnx": bytes(range(256)) * 40})


def lfs_pointer(root: Path) -> None:
    write(onnx_model(root), {"1/model.onnx": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"})


def broken_link(root: Path) -> None:
    (onnx_model(root) / "labels.txt").symlink_to("nowhere")


def broken_link_in_version(root: Path) -> None:
    (python_model(root) / "1/labels.txt").symlink_to("nowhere")


def linked_loop(root: Path) -> None:
    (onnx_model(root) / "loop").symlink_to("loop")


BROKEN: dict[str, list[Callable[[Path], object]]] = {
    "R00": [
        broken_config,
        garbage_config,
        endless_config,
        piped_config,
        no_file,
        no_python_file,
        empty_file,
        garbage_file,
        lfs_pointer,
        broken_link,
        broken_link_in_version,
        linked_loop,
    ],
    "R01": [
        lambda root: write(onnx_model(root), {"3.tmp/model.onnx": b"x"}),
        lambda root: write(onnx_model(root), {"2_old": None}),
        lambda root: write(onnx_model(root), {"0": None}),
        lambda root: write(onnx_model(root), {"-1": None}),
        lambda root: write(onnx_model(root), {"1\n": None}),
    ],
    "R02": [
        lambda root: write(onnx_model(root), {"02/model.onnx": b"x"}),
        lambda root: write(onnx_model(root), {"01": None}),
    ],
    "R03": [
        lambda root: write(onnx_model(root), {str(2**63): None}),
        lambda root: write(onnx_model(root), {"9" * 200 + "x": None}),
    ],
    "R04": [
        lambda root: write(onnx_model(root).parent, {".git/HEAD": "ref"}),
        lambda root: write(onnx_model(root).parent, {"notes": None}),
        lambda root: onnx_model(root) and (root / "gone").symlink_to("nowhere"),
    ],
    "R05": [lambda root: onnx_model(root, config=ONNX_CONFIG.replace("NAME", "other"))],
    "R06": [
        lambda root: write(onnx_model(root), {".config.pbtxt.swp": "x"}),
        lambda root: write(onnx_model(root), {"logs/today.txt": "x"}),
        lambda root: write(onnx_model(root), {"1/serving.log": "x"}),
    ],
    "R07": [
        lambda root: onnx_model(root, config=ONNX_CONFIG + POLICY % "2"),
        lambda root: onnx_model(root, config=ONNX_CONFIG + POLICY % "1, 2"),
        lambda root: onnx_model(root, config=ONNX_CONFIG + "version_policy { latest { } }\n"),
        lambda root: onnx_model(root, versions=()),
    ],
    "R09": [
        lambda root: write(published(root), {"1/labels.txt": "other"}),
        lambda root: (published(root) / "1/labels.txt").unlink(),
        lambda root: write(published(root), {"1/more.txt": "x"}),
        lambda root: write(published(root), {"1/manifest.json": "{"}),
        lambda root: write(published(root), {"1/manifest.json": "[]"}),
        lambda root: write(published(root), {"1/manifest.json": "[" * 100000}),
    ],
}

SOUND: dict[str, Callable[[Path], object]] = {
    "onnx": onnx_model,
    "python": python_model,
    "two versions": lambda root: onnx_model(root, versions=("1", "20")),
    "no config": lambda root: (python_model(root) / "config.pbtxt").unlink(),
    "no name": lambda root: onnx_model(root, config=ONNX_CONFIG.replace('name: "NAME"', "")),
    "files beside": lambda root: write(
        onnx_model(root), {"labels.txt": "a", "configs/gpu.pbtxt": "", "warmup/x": b"1"}
    ),
    "files in the root": lambda root: write(
        onnx_model(root).parent, {"conch.json": "{}", "README.md": "x", ".gitkeep": ""}
    ),
    "all versions": lambda root: onnx_model(root, config=ONNX_CONFIG + "version_policy { all { } }\n", versions="12"),
    "policy": lambda root: onnx_model(root, config=ONNX_CONFIG + POLICY % "1", versions="12"),
    "largest version": lambda root: onnx_model(root, versions=(str(2**63 - 1),)),
    "published": published,
    "linked model": lambda root: (root / "m").symlink_to(onnx_model(root.parent / "elsewhere"), True),
    "linked file": lambda root: (python_model(root) / "labels.txt").symlink_to("1/model.py"),
    "linked upwards": lambda root: (onnx_model(root) / "1/up").symlink_to(".."),
    "agent": lambda root: (
        no_file(root)
        or write(
            root / "m",
            {
                "config.pbtxt": ONNX_CONFIG.replace("NAME", "m")
                + 'model_repository_agents { agents { name: "checksum" } }'
            },
        )
    ),
}

CASES = [(rule, breaks) for rule, all_of_them in BROKEN.items() for breaks in all_of_them]


@pytest.mark.parametrize(("rule", "breaks"), CASES)
def test_a_repository_that_breaks_one_rule_has_that_finding_alone(
    rule: str, breaks: Callable[[Path], object], root: Path
) -> None:
    breaks(root)
    assert found(root) == [rule]


@pytest.mark.parametrize("build", SOUND.values(), ids=SOUND.keys())
def test_a_sound_repository_has_no_finding(build: Callable[[Path], object], root: Path) -> None:
    build(root)
    assert findings(root) == ()


def test_all_findings_are_reported_and_the_rest_of_the_repository_is_linted(root: Path) -> None:
    broken_config(root)
    write(root / "m", {"01": None, "3.tmp": None, "x.log": "x"})
    onnx_model(root, "n", config=ONNX_CONFIG.replace("NAME", "other"))
    write(root, {".git/HEAD": "ref"})
    assert found(root) == ["R00", "R01", "R02", "R04", "R05", "R06"]


def test_the_same_model_in_two_repositories_is_found_over_several_paths(tmp_path: Path) -> None:
    onnx_model(tmp_path / "a")
    onnx_model(tmp_path / "b")
    onnx_model(tmp_path / "b", "n")
    assert found([tmp_path / "a", tmp_path / "b"]) == ["R08"]
    assert found([tmp_path / "a"]) == found([tmp_path / "b"]) == []
    assert found([tmp_path / "a", tmp_path / "a"]) == []


def test_a_changed_file_is_missed_when_digests_are_left_out(root: Path) -> None:
    write(published(root), {"1/labels.txt": "other"})
    assert found(root, digests=False) == []


def test_a_version_with_bytecode_is_still_what_its_manifest_says(root: Path) -> None:
    model = python_model(root)
    publish(model)
    (model / "1/__pycache__").unlink()
    write(model, {"1/__pycache__/model.cpython-311.pyc": b"x"})
    assert "R09" not in found(root)


def test_a_finding_says_where_what_and_how_to_mend_it(root: Path) -> None:
    write(onnx_model(root), {"02/model.onnx": b"x"})
    (finding,) = findings(root)
    assert (finding.rule, finding.severity, finding.model, finding.fixable) == ("R02", "error", "m", True)
    assert finding.file == str(root / "m/02")
    assert (finding.got, finding.expected) == ("02", "2")
    assert finding.fix == f"mv {root / 'm/02'} {root / 'm/2'}"


def test_names_with_control_characters_and_bytes_are_shown_escaped(root: Path) -> None:
    onnx_model(root)
    os.mkdir(os.fsencode(root / "m") + b"/3\xff\x1b[31m")
    (finding,) = findings(root)
    assert finding.rule == "R01"
    assert finding.got.isprintable()
    assert finding.got.encode()


def test_renaming_a_leading_zero_mends_it(root: Path) -> None:
    model = onnx_model(root, versions=("02",))
    report = fix(root)
    assert [m.rules for m in report.mended] == [("R02",)]
    assert sorted(p.name for p in model.iterdir()) == ["2", "config.pbtxt"]
    assert report.after.findings == ()


def test_a_leading_zero_is_left_alone_when_its_number_is_taken(root: Path) -> None:
    model = onnx_model(root, versions=("1", "01"))
    report = fix(root)
    assert report.mended == ()
    assert [(f.rule, f.fixable) for f in report.after.findings] == [("R02", False)]
    assert (model / "01/model.onnx").is_file()


def test_the_name_is_mended_and_the_comments_stay(root: Path) -> None:
    model = python_model(root, config="# ours\n" + PYTHON_CONFIG.replace('"NAME"', '"other"  # copied'))
    assert check(root).errors
    assert fix(root).after.findings == ()
    assert (model / "config.pbtxt").read_text() == "# ours\n" + PYTHON_CONFIG.replace('"NAME"', '"m"  # copied')


def test_a_model_that_is_not_asked_for_is_not_judged(root: Path) -> None:
    broken_config(root)
    onnx_model(root, "n")
    assert check(root / "n", LintOptions()).findings == ()
    assert check(root / "n").models == 1


def test_one_version_is_judged_by_itself(root: Path) -> None:
    model = onnx_model(root, versions=("1", "2"))
    write(model, {"2/model.onnx": b""})
    assert found(model / "1") == []
    assert found(model / "2") == ["R00"]


def test_a_policy_does_not_keep_a_version_from_being_judged(root: Path) -> None:
    model = onnx_model(root, config=ONNX_CONFIG + POLICY % "1", versions=("1", "2"))
    assert found(model / "2") == []
    write(model, {"2/model.onnx": b""})
    assert found(model / "2") == ["R00"]


def test_links_that_lead_upwards_are_followed_once(root: Path) -> None:
    model = onnx_model(root)
    (model / "1/up").symlink_to("..")
    assert VersionFolder("1", model / "1").files == ("model.onnx", "up/config.pbtxt")
