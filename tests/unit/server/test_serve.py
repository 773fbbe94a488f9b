"""What `conch serve` tells, and the words of its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from conch.errors import ServerError
from conch.manifest import Manifest
from server.cli import _resource, _restriction, doctor, serve, status
from server.http_api import ModelState
from server.options import RateLimitResource, Restriction
from server.serve import States, changes, origin, settled, worth_showing


def states(*rows: tuple[str, str, str, str]) -> States:
    return {(name, version): ModelState(name, version, state, reason) for name, version, state, reason in rows}


READY = states(("m", "1", "READY", ""))
UNLOADED = states(("m", "1", "UNAVAILABLE", "unloaded"))
BROKEN = ("m", "2", "UNAVAILABLE", "SyntaxError: invalid syntax")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param(READY, READY, [], id="nothing"),
        pytest.param({}, READY, ["m version 1 is ready"], id="loaded"),
        pytest.param(READY, UNLOADED, ["m version 1 is no longer served"], id="let-go"),
        pytest.param(READY, {}, ["m version 1 is no longer served"], id="removed"),
        pytest.param(states(BROKEN), {}, [], id="a-broken-one-removed"),
        pytest.param(states(BROKEN), states(BROKEN), [], id="still-broken"),
    ],
)
def test_what_changed_is_told(before: States, after: States, told: list[str]) -> None:
    assert changes(before, after) == told


def test_a_failed_version_is_told_with_its_reason_and_what_to_do() -> None:
    [line] = changes(READY, {**READY, **states(BROKEN)})
    assert "m version 2: SyntaxError: invalid syntax" in line
    assert "fix:" in line


def test_a_model_on_its_way_is_as_it_was() -> None:
    loading = states(("m", "1", "READY", ""), ("m", "2", "LOADING", ""), ("n", "1", "LOADING", ""))
    assert settled(states(BROKEN), loading) == states(("m", "1", "READY", ""), BROKEN)


def test_the_log_without_what_is_told_otherwise() -> None:
    lines = [
        '2026-11-20T07:47:28Z W 1 x.cc:1] "a warning"',
        "I1120 07:59:36.818598 24474 pb_stub.cc:298]  Failed to initialize Python stub for auto-complete: SyntaxError",
        "",
        "At:",
        "  /repo/raises/1/model.py(1): <module>",
        "2026-11-20T07:47:28Z E 1 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal\"",
        "printed by a model",
        "  with an indented line",
    ]
    assert worth_showing(lines) == [lines[0], lines[6], lines[7]]


def test_the_missing_pinned_memory_of_a_machine_without_gpu_is_not_shown() -> None:
    line = '2026-01-02T03:04:05Z W 1 pinned_memory_manager.cc:170] "failed to allocate: no pinned memory pool, falling"'
    other = line.replace("no pinned memory pool", "the pool is full")
    assert worth_showing([line, other]) == [other]


@pytest.mark.parametrize(
    ("text", "resource"),
    [("R1:4", RateLimitResource("R1", 4)), ("R1:4:0", RateLimitResource("R1", 4, 0))],
)
def test_a_resource(text: str, resource: RateLimitResource) -> None:
    assert _resource(text) == resource


@pytest.mark.parametrize("text", ["R1", "R1:x", ":4", "R1:1:2:3"])
def test_no_resource(text: str) -> None:
    with pytest.raises(ServerError, match="NAME:COUNT"):
        _resource(text)


def test_a_restriction() -> None:
    due = Restriction(("model-repository", "trace"), "key", "a=b")
    assert _restriction("model-repository,trace:key=a=b") == due


@pytest.mark.parametrize("text", ["", "trace", "trace:key", "trace:=v", ":key=v"])
def test_no_restriction(text: str) -> None:
    with pytest.raises(ServerError, match="HEADER=VALUE"):
        _restriction(text)


@pytest.mark.parametrize("command", [serve, status, doctor], ids=lambda c: c.name)
def test_help_has_examples(command: object) -> None:
    result = CliRunner().invoke(command, ["--help"])  # type: ignore[arg-type]
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"conch {command.name}" in result.output  # type: ignore[attr-defined]


def test_json_and_watch_exclude_each_other() -> None:
    assert CliRunner().invoke(status, ["--json", "--watch", "1"]).exit_code == 2


def manifest(folder: Path, source: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    Manifest("m", "2026-02-03T04:05:06+00:00", source, {}, "").write(folder)


def test_a_version_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    manifest(tmp_path / "m" / "1", {"kind": "onnx", "path": "/data/m.onnx"})
    [line] = changes({}, READY, lambda row: origin([tmp_path], row))
    assert line == "m version 1 is ready: onnx /data/m.onnx, of 2026-02-03T04:05:06+00:00"


def test_a_version_that_failed_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    manifest(tmp_path / "m" / "2", {"kind": "huggingface", "model": "org/name"})
    [line] = changes(READY, {**READY, **states(BROKEN)}, lambda row: origin([tmp_path], row))
    assert "from:     huggingface org/name, of 2026" in line


@pytest.mark.parametrize("text", [None, "{}", "no json"])
def test_a_version_without_a_manifest_that_can_be_read_is_told_all_the_same(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    if text is not None:
        (tmp_path / "m" / "1" / "manifest.json").write_text(text)
    assert changes({}, READY, lambda row: origin([tmp_path], row)) == ["m version 1 is ready"]
