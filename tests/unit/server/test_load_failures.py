"""Reasons are read from the index and the log as tritonserver 2.51 writes them."""

from __future__ import annotations

import pytest

from conch.errors import ModelLoadError
from server.http_api import ModelState
from server.load_failures import PORT_TAKEN, advice, load_error, reason_in_log, tail, tidy

MISSING_MODULE = (
    "Internal: ModuleNotFoundError: No module named 'nothere'\n\nAt:\n  /repo/raises/1/model.py(1): <module>\n"
    "  <frozen importlib._bootstrap>(241): _call_with_frames_removed\n"
)
DEPENDS = (
    "Invalid argument: ensemble 'ens' depends on 'raises' which has no loaded version. Model 'raises' loading failed "
    "with error: version 1 is at UNAVAILABLE state: " + MISSING_MODULE.replace("\n", "\\n") + ";"
)
LOG = f"""\
2026-11-20T07:47:28Z E 8314 server.cc:241] "CudaDriverHelper has not been initialized."
[libprotobuf ERROR /tmp/x/text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:7: Expected string, got: x
2026-11-20T07:47:28Z E 8314 model_repository_manager.cc:1460] "Poll failed for model directory 'bad': failed to read text proto from /repo/bad/config.pbtxt"
2026-11-20T07:47:28Z E 8314 model_repository_manager.cc:1460] "Poll failed for model directory 'empty': Invalid model name: Could not determine backend for model 'empty'"
2026-11-20T07:47:28Z I 8314 model_lifecycle.cc:472] "loading: raises:1"
2026-11-20T07:47:30Z E 8314 model_repository_manager.cc:703] "{DEPENDS}"
| good   | 1       | READY 'bad' |
"""  # noqa: E501


def test_a_reason_on_one_line_with_the_place() -> None:
    due = "ModuleNotFoundError: No module named 'nothere' At: /repo/raises/1/model.py(1): <module>"
    assert tidy(MISSING_MODULE) == due


def test_the_refusal_of_a_stand_in_says_all_and_its_fix_is_the_advice() -> None:
    refusal = (
        "Internal: LoadFailed: m: input x has other dims in the model\n  got:      x [4]\n  expected: x [3]\n"
        "  fix:      dims: [3]\n\nAt:\n  /tmp/backends/onnxruntime/model.py(44): initialize\n"
    )
    reason = tidy(refusal)
    assert reason == "m: input x has other dims in the model; got: x [4]; expected: x [3]; fix: dims: [3]"
    assert advice(ModelState("m", "1", "", reason)).endswith("dims: [3]")
    assert "At:" not in reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad", "config.pbtxt: 1:7: Expected string, got: x"),
        ("empty", "Invalid model name: Could not determine backend for model 'empty'"),
        ("ens", "depends on raises, which did not load"),
        ("good", "the server gives no reason: is it in the repository?"),
        ("emp", "the server gives no reason: is it in the repository?"),
    ],
)
def test_what_the_log_says_of_a_model(name: str, reason: str) -> None:
    assert reason_in_log(name, LOG) == reason


def test_a_protobuf_error_belongs_to_the_next_line_alone() -> None:
    log = LOG.replace("directory 'bad'", "directory 'other'", 1)
    assert "1:7" not in reason_in_log("empty", log)
    assert "1:7" in reason_in_log("other", log)


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        (tidy(MISSING_MODULE), "install the package of nothere"),
        ("SyntaxError: invalid syntax (model.py, line 1)", "Python code"),
        (
            "Load model failed: Unsupported model IR version: 13, max supported IR version: 10",
            "--target",
        ),
        ("config.pbtxt: 1:7: Expected string", "line and column"),
        ("unable to find backend library for backend 'nosuch', try specifying runtime", "no backend named nosuch"),
        ("depends on raises, which did not load", "see raises"),
        ("failed to poll model 'x': model not found in any model repository.", "export it again"),
        ("something never seen", "serve the others without it"),
    ],
)
def test_advice(reason: str, fix: str) -> None:
    assert fix in advice(ModelState("m", "1", "UNAVAILABLE", reason))


def test_one_failure_is_the_headline() -> None:
    error = load_error([ModelState("bad", "2", "UNAVAILABLE", "no such file")])
    assert isinstance(error, ModelLoadError)
    assert error.what == "model bad did not load"
    assert "bad version 2: no such file" in str(error)


def test_several_failures_are_all_named_and_the_fix_is_the_first_ones() -> None:
    failed = [ModelState("raises", "1", "", tidy(MISSING_MODULE)), ModelState("ens", "", "", tidy(DEPENDS))]
    error = load_error(failed)
    assert error.what == "these models did not load: raises, ens"
    assert str(error.fix).startswith("raises: install")


def test_the_tail_is_the_end_without_blank_lines() -> None:
    assert tail("a\n\nb\nc\n", lines=2) == "    b\n    c"


@pytest.mark.parametrize(
    ("before", "after"), [("unrecognized option '--nope'\n", ""), ("", "Invalid option value. Got many\n")]
)
def test_the_tail_leaves_the_page_of_options_out(before: str, after: str) -> None:
    usage = "Usage: tritonserver [options]\n  --help\n\tPrint usage\n\nServer:\n  --id <string>\n\tIdentifier\n\n"
    assert tail(before + usage + after) == "    " + (before + after).strip()


@pytest.mark.parametrize(
    "line",
    [
        "failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use ",
        "failed to start GRPC service: Unavailable - Socket '127.0.0.1:8001' already in use",
        "failed to start Metrics service: Unavailable - Socket",
    ],
)
def test_a_port_that_was_taken_meanwhile_is_recognised(line: str) -> None:
    assert PORT_TAKEN.search(line)
