"""What the benchmarks of generation and of the gateway make of their rounds, and what they are held to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from perf import gateway_overhead, generation, generation_standings, result_files
from perf.contenders.entries import Role
from perf.requirement import Requirement, ratio, spread
from perf.stream_load import StreamResult

BARE, FRAMEWORK = "bare OpenVINO GenAI", "FastAPI calling transformers"
ROLES: dict[str, Role] = {
    BARE: "limit",
    generation.GRPC: "ours",
    generation.EVENTS: "ours",
    FRAMEWORK: "framework",
}


def test_a_requirement_holds_or_not() -> None:
    assert Requirement("ratio", 0.8, 0.8).holds
    assert not Requirement("ratio", 0.79, 0.8).holds
    assert Requirement("ms", 2.0, 2.0, at_least=False).holds
    assert not Requirement("ms", 2.1, 2.0, at_least=False).holds


@pytest.mark.parametrize("at_least", [True, False])
def test_what_was_not_measured_does_not_hold(at_least: bool) -> None:
    missing = Requirement("ratio", math.nan, 0.8, at_least)
    assert not missing.holds
    assert missing.row()[:3] == ("NO", "ratio", "not measured")


def test_a_ratio_is_taken_within_a_round() -> None:
    assert ratio([10, 50, 90], [20, 50, 60]) == 1.0
    assert math.isnan(ratio([10], [20, 50]))
    assert math.isnan(ratio([], []))
    assert spread([3, 1, 2], 0) == "2 (1 to 3)"


def test_json_knows_no_nan_and_a_table_has_names_in_its_second_column() -> None:
    assert result_files.plain({"a": [math.nan, 1.0], "b": {"c": math.inf}}) == {"a": [None, 1.0], "b": {"c": None}}
    assert result_files.markdown(("n", "who"), [(1, "me")]) == ["| n | who |", "| ---: | --- |", "| 1 | me |"]


def streams(number: int, rate: float, first_ms: float) -> StreamResult:
    return StreamResult(number, 10, 0, rate, first_ms, 2 * first_ms, 1.0)


def runs(**changed: list[StreamResult]) -> dict[int, dict[str, list[StreamResult]]]:
    most = {
        BARE: [streams(16, 1000, 50), streams(16, 500, 90)],
        generation.GRPC: [streams(16, 900, 60), streams(16, 450, 100)],
        generation.EVENTS: [streams(16, 800, 70), streams(16, 400, 110)],
        FRAMEWORK: [streams(16, 30, 9000), streams(16, 15, 9000)],
    }
    least = {name: [streams(1, 100, 30), streams(1, 50, 50)] for name in most}
    return {1: least, 16: most | {name.replace("_", " "): own for name, own in changed.items()}}


def test_generation_is_held_to_the_bare_engine_and_to_fastapi() -> None:
    equal = {generation.GRPC: 1.0}
    held = generation_standings.requirements(
        runs(), runs(), ROLES, grpc=generation.GRPC, events=generation.EVENTS, same_precision=BARE, equal=equal
    )
    assert [round(each.measured, 3) for each in held] == [0.9, 0.8, 0.9, 0.8, 30, 26.667, 2.0, 2.267, 1.0]
    assert all(each.holds for each in held)


def test_what_is_held_to_a_contender_that_is_missing_does_not_hold() -> None:
    roles = {name: role for name, role in ROLES.items() if role != "framework"}
    held = generation_standings.requirements(
        runs(), runs(), roles, grpc=generation.GRPC, events=generation.EVENTS, same_precision=BARE, equal={}
    )
    assert [each.what for each in held if not each.holds] == [each.what for each in held if "FastAPI" in each.what]


def test_a_row_for_everyone_with_ratios_of_ours() -> None:
    table = generation_standings.rows(runs(), ROLES)
    assert len(table) == 8
    assert len({len(row) for row in (generation_standings.HEADER, *table)}) == 1
    ours = next(row for row in table if row[:2] == ("16", generation.GRPC))
    assert ours[2] == "675 (450 to 900)"
    assert ours[-2:] == ("0.90", "30.00")
    assert next(row for row in table if row[:2] == ("16", BARE))[-2:] == ("", "")


def answered(level: int, rate: float, p50_ms: float) -> gateway_overhead.Run:
    return gateway_overhead.Run(level, 100, 0, rate, p50_ms, 3 * p50_ms, triton_cpu_ms=1.5, gateway_cpu_ms=0.5)


OVERHEAD = {
    8: {
        gateway_overhead.DIRECT: [answered(8, 600, 12), answered(8, 300, 25)],
        gateway_overhead.OPENAI: [answered(8, 500, 14), answered(8, 270, 26)],
    }
}


def test_the_gateway_is_held_to_triton() -> None:
    held = gateway_overhead.requirements(OVERHEAD)
    assert [round(each.measured, 3) for each in held] == [1.5, 0.867]
    assert all(each.holds for each in held)
    direct, through = gateway_overhead.rows(OVERHEAD)
    assert direct[-4:] == ("", "", "1.50", "")
    assert through[-4:] == ("0.87", "+1.50", "1.50", "0.50")


def test_a_number_in_flight_that_was_not_measured_does_not_hold() -> None:
    assert not gateway_overhead.requirements({1: {}})[0].holds


def test_generations_files_are_a_table_and_json_without_nan(tmp_path: Path) -> None:
    plan = generation.Plan((1, 16), 64, 8.0, 2.0, 2, 16)
    broken = runs()
    broken[16][FRAMEWORK] = [replace(run, first_token_p50_ms=math.nan) for run in broken[16][FRAMEWORK]]
    outcome = generation.Outcome(broken, {}, dict(ROLES), {generation.GRPC: 1.0}, ["a note"], {})
    generation.write_results(outcome, plan, "int8", tmp_path / "generation")
    document: dict[str, Any] = json.loads((tmp_path / "generation.json").read_text())
    assert [each["holds"] for each in document["requirements"][:3]] == [
        False,
        False,
        True,
    ]  # the first two have no runs
    assert len(document["runs"]) == 16
    text = (tmp_path / "generation.md").read_text()
    assert "| 16 | conch, Triton gRPC |" in text
    assert "- a note" in text


@pytest.mark.parametrize("command", [generation.main, gateway_overhead.main])
def test_help_says_what_is_compared(command: Any) -> None:
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0
    assert "--quick" in shown.stdout
