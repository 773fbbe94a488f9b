from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conch.cli import root
from conch.errors import ConchError
from tests.fakes import tiny_onnx

SUBCOMMANDS = ("torch", "onnx", "sklearn", "huggingface", "sample")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny_onnx.save(tiny_onnx.linear(), tmp_path / "my model.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["export", *map(str, arguments)])


def conch(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in a process of its own."""
    command = [sys.executable, "-c", "from conch.cli import main; main()", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"conch export {command} " in result.output
    assert {"--repository", "--json"} <= set(result.output.split())


@pytest.mark.parametrize("command", SUBCOMMANDS[:4])
def test_the_shared_options_are_the_same_everywhere(command: str) -> None:
    output = run(command, "--help").output
    options = "--name --format --precision --calibration --optimize --opset --target --max-batch-size --instances"
    assert [option for option in [*options.split(), "--rules", "--samples", "--atol"] if option not in output] == []


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\nfrom conch.cli import root\n"
        "root.main(['export', 'huggingface', '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_an_export_from_the_command_line(model: Path, tmp_path: Path) -> None:
    began = time.time()
    result = run("onnx", model, "--max-batch-size", 4, "--no-trial", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["name"] == "my_model"
    assert document["trial"] == "left out (--no-trial)"
    written = tmp_path / "model_repository" / "my_model" / "1" / "model.onnx"
    assert Path(document["path"]) == written.parent
    assert written.stat().st_mtime >= began - 1
    assert "serve --repository model_repository" in result.stderr


def test_stdout_holds_nothing_but_json(model: Path, tmp_path: Path) -> None:
    done = conch("onnx", model, "--no-trial", "--precision", "int8", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 1)
    assert "Warning" not in done.stderr


def test_without_json_stdout_is_empty(model: Path) -> None:
    result = run("onnx", model, "--no-trial")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "ask it:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "24.08", "--opset", "23"), "opset 23 is too new"),
        (("--format", "torchscript"), "exported as ONNX"),
        (("--rules", "rules.yaml"), "--rules needs a model with labels"),
        (("--name", "no name"), "no name for a model"),
        (("--atol", "0", "--precision", "fp16"), "does not answer as its source"),
    ],
)
def test_what_cannot_be_is_an_error(arguments: tuple[str, ...], message: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("threshold: 0.5\n", encoding="utf-8")
    result = run("onnx", model, "--no-trial", *arguments)
    assert isinstance(result.exception, ConchError)
    assert message in str(result.exception)
    assert result.exit_code != 0
    assert list((tmp_path / "model_repository").glob("*")) == []


def test_a_failure_is_short_and_exits_non_zero(model: Path, tmp_path: Path) -> None:
    tiny_onnx.save(tiny_onnx.linear(ir_version=12), model)
    done = conch("onnx", model, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "error: the model's IR version is too new for Triton 24.10"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("onnx", "nowhere.onnx"), ("torch",), ("huggingface", "x", "--task", "sing")])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_an_unknown_sample_is_named_with_the_nearest() -> None:
    result = run("sample", "spamm")
    assert "there is no sample named spamm" in str(result.exception)
    assert "did you mean spam?" in str(result.exception)
