import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conch.lint.cli import lint
from tests.fakes.lint_repositories import ONNX_CONFIG, PYTHON_CONFIG, onnx_model, python_model, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(lint, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def broken(root: Path) -> Path:
    write(onnx_model(root, config="# mine\n" + ONNX_CONFIG.replace("NAME", "other")), {"x.log": "x"})
    onnx_model(root, "n")
    return root


def test_a_sound_repository_exits_with_0_and_one_line(root: Path) -> None:
    onnx_model(root)
    result = run(root)
    assert result.exit_code == 0
    assert result.stderr.strip().startswith("0 errors, 0 warnings, 0 notes: 1 model, 1 version, for 24.10, in ")


def test_errors_exit_with_1_and_show_all_that_a_person_needs(root: Path) -> None:
    result = run(broken(root))
    assert result.exit_code == 1
    assert "error    R05 Triton refuses a model with another name than its folder (--fix mends it)" in result.stderr
    assert f"where:    {root / 'm/config.pbtxt'}  name" in result.stderr
    assert "got:      other" in result.stderr
    assert "expected: m" in result.stderr
    assert 'fix:      name: "m"' in result.stderr
    assert "warning  R06" in result.stderr
    assert "1 error, 1 warning, 0 notes, 1 of them mended by --fix: 2 models, 2 versions" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 1)])
def test_warnings_exit_with_1_when_strict(root: Path, flags: tuple[str, ...], code: int) -> None:
    write(onnx_model(root), {"x.log": "x"})
    assert run(root, *flags).exit_code == code


def test_json_is_one_document_on_stdout(root: Path) -> None:
    result = run(broken(root), "--json", "--off", "R06=an editor")
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert result.exit_code == 1
    assert (document["format"], document["target"], document["models"], document["errors"]) == (1, "24.10", 2, 1)
    (finding,) = document["findings"]
    assert finding == {
        "rule": "R05",
        "severity": "error",
        "model": "m",
        "file": str(root / "m/config.pbtxt"),
        "place": "name",
        "message": "Triton refuses a model with another name than its folder",
        "got": "other",
        "expected": "m",
        "fix": 'name: "m"',
        "fixable": True,
    }
    assert [(o["rule"], o["reason"], o["by"]) for o in document["off"]] == [("R06", "an editor", "--off")]


def test_fix_mends_says_so_and_keeps_comments(root: Path) -> None:
    result = run(broken(root), "--fix", "--off", "R06=an editor")
    assert result.exit_code == 0
    assert f"mended   R05 {root / 'm/config.pbtxt'}: name: m" in result.stderr
    assert "off      R06 m x.log: an editor" in result.stderr
    assert (root / "m/config.pbtxt").read_text() == "# mine\n" + ONNX_CONFIG.replace("NAME", "m")
    assert sorted(p.name for p in root.parent.iterdir()) == ["models"]


def test_fix_as_json_lists_what_was_done(root: Path) -> None:
    document = json.loads(run(broken(root), "--fix", "--json").stdout)
    assert [(m["rules"], m["what"], m["comments_kept"]) for m in document["mended"]] == [(["R05"], "name: m", True)]
    assert document["not_mended"] == []
    assert [f["rule"] for f in document["findings"]] == ["R06"]


def test_several_repositories_are_one(tmp_path: Path) -> None:
    onnx_model(tmp_path / "a")
    onnx_model(tmp_path / "b")
    result = run(tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 1
    assert "R08" in result.stderr


def test_the_options_file_can_be_named(root: Path) -> None:
    write(onnx_model(root), {"x.log": "x"})
    write(root.parent, {"strict.yaml": "switch-off: [{rule: R06, reason: rotated}]"})
    assert run(root, "--strict", "--config", root.parent / "strict.yaml").exit_code == 0


def test_a_rule_is_explained() -> None:
    result = run("--explain", "r10")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "R10 (error, --fix mends it): the batch dimension is counted twice\n\nWith max_batch"
    )


def test_all_rules_are_listed() -> None:
    result = run("--explain", "all", "--json")
    assert len(json.loads(result.stdout)) == 39


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--off", "R99=x"), "there is no rule R99"),
        (("--off", "R06"), "--off needs a rule and a reason"),
        (("--explain", "R99"), "there is no rule R99"),
        (("--target", "24.09"), "release 24.09 is not in the table"),
        (("gone",), "there is no such repository"),
    ],
)
def test_a_wrong_argument_is_an_error_with_the_fix(arguments: tuple[str, ...], message: str, root: Path) -> None:
    command = [sys.executable, "-m", "conch", "repo", "lint", *arguments, *([] if "gone" in arguments else [str(root)])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}")
    assert "Traceback" not in result.stderr


def test_the_command_line_exits_with_1_on_errors(root: Path) -> None:
    command = [sys.executable, "-m", "conch", "repo", "lint", str(broken(root))]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1


def test_names_from_a_repository_are_no_markup(root: Path) -> None:
    python_model(root, config=PYTHON_CONFIG.replace("NAME", "[red]x[/red]"))
    assert "[red]x[/red]" in run(root).stderr
