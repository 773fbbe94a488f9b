"""`conch export llm` on the command line: what goes together, what is missing, and what help says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conch.cli import root
from conch.errors import ExportError
from export.llm import convert
from export.llm.options import LlmOptions, OpenVinoOptions, VllmOptions


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["export", "llm", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, ExportError)
    return str(result.exception)


def test_help_says_that_vllm_was_not_run_here() -> None:
    output = " ".join(run("--help").output.split())
    assert "running it takes NVIDIA's image and a GPU, so that it is not tried here" in output
    assert "conch export llm ./my-llama --weight-format int4" in output


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\nfrom conch.cli import root\n"
        "root.main(['export', 'llm', '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'openvino', 'optimum', 'nncf', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("x", "--quantization", "awq"), "--quantization"),
        (("x", "--option", "seed=1"), "--option"),
        (("x", "--engine", "vllm", "--weight-format", "int4"), "--weight-format"),
        (("x", "--engine", "vllm", "--adapter", "a=b.safetensors"), "--adapter"),
        (("x", "--speculation", "draft"), "--draft names the model"),
        (("x", "--draft", "y"), "--draft names the model"),
        (("x", "--adapter", "a"), "--adapter NAME=PATH"),
        (("x", "--adapter", "a=/nowhere.safetensors"), "that is no LoRA adapter"),
        (("x", "--engine", "vllm", "--option", "seed"), "--option NAME=VALUE"),
        (("./nowhere", "--engine", "vllm"), "there is no such model folder"),
        (("./nowhere", "--engine", "vllm", "--option", "max_num_sequences=3"), "did you mean max_num_seqs?"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    assert told in refused(*arguments, "--repository", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_missing_converter_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_is_there", lambda module: False)
    message = refused("./anything")
    assert "pip install -e '.[llm]'" in message
    assert "pip install --no-deps optimum==2.3.0 optimum-intel==2.2.0 nncf==3.4.0" in message


def test_the_makefile_installs_the_converter_that_the_message_names() -> None:
    makefile = Path(convert.__file__).resolve().parents[2] / "Makefile"
    assert f"--no-deps {convert.CONVERTER}" in makefile.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options",
    [
        LlmOptions("x", speculation="guess"),
        OpenVinoOptions("x", weight_format="int2"),
        VllmOptions("x", speculation="lookup"),
    ],
)
def test_values_that_nobody_knows_are_refused(options: LlmOptions) -> None:
    with pytest.raises(ExportError, match="a value that export does not know"):
        options.check()
