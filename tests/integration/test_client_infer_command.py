"""`conch infer` against a real server: what it reads, what it prints where, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clients.cli import infer
from conch.errors import ConchError, ModelNotFound
from tests.fakes.client_models import ECHO, ECHO_CONFIG, add_client_models

pytestmark = pytest.mark.integration

SUM = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(r) for r in requests]

    def answer(self, request):
        age, fee = (pb_utils.get_input_tensor_by_name(request, n).as_numpy() for n in ("age", "fee"))
        total = (age + fee).astype(np.float32)
        outputs = [pb_utils.Tensor("sum", total), pb_utils.Tensor("many", np.repeat(total, 384, axis=1))]
        return pb_utils.InferenceResponse(outputs)
"""
SUM_CONFIG = """
    backend: "python"
    max_batch_size: 4
    input { name: "age" data_type: TYPE_INT64 dims: [ 1 ] }
    input { name: "fee" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "many" data_type: TYPE_FP32 dims: [ 384 ] }
"""


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    add_client_models(triton)
    triton.add("client_sum", SUM_CONFIG, {"model.py": SUM})
    image = ECHO_CONFIG.replace('"text"', '"image"')
    triton.add("client_image", image, {"model.py": ECHO.replace('"text"', '"image"').replace(".decode()", ".hex()")})
    return triton


Run = Callable[..., Result]


@pytest.fixture
def run(server: Any) -> Run:
    """Run `conch infer` with these arguments, against the shared server's HTTP port unless told otherwise."""

    def call(*arguments: str, url: str | None = None, stdin: str | None = None, check: bool = True) -> Result:
        result = CliRunner().invoke(infer, [*arguments, "--url", url or server.http_url], input=stdin)
        if check:
            assert result.exit_code == 0, result.output
        return result

    return call


def answers(result: Result) -> list[dict[str, Any]]:
    return list(json.loads(result.stdout)["answers"])


def test_texts_are_shown_in_a_table_on_stderr(run: Run) -> None:
    result = run("client_echo", "--text", "win a prize", "--text", "안녕")
    assert result.stdout == ""
    rows = [line.split() for line in result.stderr.splitlines()]
    assert ["input", "text"] in rows
    assert ["win", "a", "prize", "win", "a", "prize"] in rows
    assert ["안녕", "안녕"] in rows


def test_json_alone_prints_one_document_on_stdout(run: Run) -> None:
    result = run("client_echo", "--text", "a", "--text", "b", "--json")
    assert json.loads(result.stdout) == {"model": "client_echo", "answers": [{"text": "a"}, {"text": "b"}]}


def test_more_texts_than_a_batch_holds_are_several_requests(run: Run) -> None:
    texts = [f"{n}" for n in range(20)]
    given = [part for text in texts for part in ("--text", text)]
    assert [answer["text"] for answer in answers(run("client_echo", *given, "--json"))] == texts


@pytest.mark.parametrize("arguments", [("client_echo", "--json"), ("--json", "client_echo")])
def test_the_name_may_follow_a_bare_json(run: Run, arguments: tuple[str, ...]) -> None:
    assert answers(run(*arguments, "--text", "a")) == [{"text": "a"}]


def test_json_with_a_file_reads_the_inputs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"text": ["a", "b"]}, {"text": "c"}]))
    result = run("client_echo", "--json", str(tmp_path / "in.json"), "--json")
    assert answers(result) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert "text" in run("client_echo", "--json", str(tmp_path / "in.json")).stderr


def test_json_with_a_dash_reads_standard_input(run: Run) -> None:
    assert answers(run("client_echo", "--json", "-", "--json", stdin='{"text": "a"}')) == [{"text": "a"}]


def test_csv_rows_are_items_and_long_vectors_are_cut(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("fee,age,name\n" + "".join(f"{n}.5,{n},x\n" for n in range(10)))
    shown = run("client_sum", "--csv", str(tmp_path / "in.csv")).stderr
    assert "no such input: name" in shown
    assert "384 values]" in shown
    sums = answers(run("client_sum", "--csv", str(tmp_path / "in.csv"), "--output", "sum", "--json"))
    assert sums == [{"sum": 2 * n + 0.5} for n in range(10)]


def test_images_go_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\x00")
    shown = run("client_image", "--image", str(tmp_path / "a.png")).stderr
    assert "a.png" in shown


def test_a_stream_is_printed_response_by_response(run: Run, server: Any) -> None:
    result = run("client_count", "--json", "-", "--json", url=server.grpc_url, stdin='{"n": 3}')
    assert answers(result) == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_an_unknown_model_names_the_nearest(run: Run) -> None:
    error = run("client_eco", "--text", "a", check=False).exception
    assert isinstance(error, ModelNotFound)
    assert error.fix == "did you mean client_echo?"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("client_echo",), "text BYTES [batch, 1]"),
        (("client_sum", "--text", "a"), "takes no --text"),
        (("client_echo", "--text", "a", "--text-pair", "b"), "text_pair"),
    ],
)
def test_what_does_not_fit_the_model_says_what_does(run: Run, arguments: tuple[str, ...], part: str) -> None:
    error = run(*arguments, check=False).exception
    assert isinstance(error, ConchError)
    assert part in str(error)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--text", "a"), "Missing argument 'NAME'"),
        (("client_echo", "--text", "a", "--json", "-"), "in one way"),
        (("client_echo", "--text-pair", "a"), "needs --text"),
        (("client_echo", "--text", "a", "--header", "x"), "NAME=VALUE"),
        (("client_echo", "--image", "none.png"), "does not exist"),
        (("client_echo", "--timeout", "0"), "--timeout"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(run: Run, arguments: tuple[str, ...], part: str) -> None:
    result = run(*arguments, check=False)
    assert result.exit_code == 2
    assert part in result.stderr


def test_failure_is_short_and_exits_non_zero(server: Any) -> None:
    code = "from conch.cli import main; main()"
    command = [sys.executable, "-c", code, "infer", "spam", "--text", "a", "--url", "http://127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no server answers at http://127.0.0.1:1")
    assert "conch serve" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
