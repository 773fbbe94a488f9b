"""The examples for CI: valid by their own schemas, and they call the linter as it is."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from conch.lint.cli import lint
from conch.lint.options import read_options
from tests.fakes.lint_repositories import ONNX_CONFIG, onnx_model, write

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/ci"


def commands(text: str) -> list[list[str]]:
    """Every call of the linter in a file, up to a redirection."""
    found = re.findall(r"conch repo lint[^>\n]*", text)
    return [shlex.split(line)[3:] for line in found]


def calls() -> list[list[str]]:
    workflow = commands((EXAMPLES / "lint-models.yml").read_text())
    local = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return [*workflow, *commands(local["entry"]), [*commands(hook["entry"])[0], *hook["args"]]]


@pytest.mark.parametrize("arguments", calls(), ids=" ".join)
def test_each_call_lints_a_repository(arguments: list[str], tmp_path: Path) -> None:
    write(onnx_model(tmp_path), {"x.log": "x"})
    values = {"model_repository": str(tmp_path), "$MODELS": str(tmp_path), "$TARGET": "24.10"}
    result = CliRunner().invoke(lint, [values.get(a, a) for a in arguments])
    assert result.exit_code == 0
    assert "R06" in result.output


def test_the_workflow_is_one_by_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    result = subprocess.run([*command, EXAMPLES / "lint-models.yml"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_the_workflow_shows_each_finding_at_its_file(tmp_path: Path) -> None:
    steps = yaml.safe_load((EXAMPLES / "lint-models.yml").read_text())["jobs"]["lint"]["steps"]
    (program,) = [s["run"] for s in steps if s.get("name", "").startswith("Show")]
    fields = set(re.findall(r"\.(\w+)", program.split("jq -r")[1])) - {"findings", "json"}
    onnx_model(tmp_path, config=ONNX_CONFIG.replace("NAME", "other"))
    (finding,) = json.loads(CliRunner().invoke(lint, [str(tmp_path), "--json"]).stdout)["findings"]
    assert fields == {"message", "got", "expected", "fix", "severity", "file", "rule", "model"}
    assert fields <= finding.keys()


def test_the_options_file_is_read_whole() -> None:
    options = read_options(EXAMPLES / "conch-lint.yaml")
    assert (options.target, options.cpus, options.gpu) == ("24.10", 4, False)
    assert [(o.rule, o.models) for o in options.off] == [("R17", ()), ("R21", ("digits_*",))]
