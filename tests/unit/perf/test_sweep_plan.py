"""What a sweep measures, in which order, and how its file keeps it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest

from conch.errors import ConchError
from perf.points import Load, Machine, Point
from perf.sweep import record
from perf.sweep.cli import numbers
from perf.sweep.plan import Cell, Plan, check_batches, in_words, remaining_s

MACHINE = Machine("a cpu", 2, 8.0, "3.11", "2.51.0", "Linux")
PLAN = Plan(Load("spam", concurrency=1, window_ms=2000), (1, 8), (1, 4), (1, 2), "spam")


def begun(plan: Plan = PLAN) -> record.Sweep:
    return record.Sweep("spam", "2026-01-02T03:04:05+00:00", plan, MACHINE)


def point(cell: Cell, rate: float = 100.0) -> Point:
    return Point(PLAN.load(cell), rate, rate * cell.batch_size, {"p50": 1.0, "p99": 2.0}, batch_sizes={4: 3})


def test_instances_change_rarest():
    cells = PLAN.cells
    assert len(cells) == 8
    assert [cell.instances for cell in cells] == [1] * 4 + [2] * 4
    assert cells[:3] == (Cell(1, 1, 1), Cell(1, 1, 8), Cell(1, 4, 1))


def test_a_cells_load_keeps_all_else():
    load = PLAN.load(Cell(2, 4, 8))
    assert (load.concurrency, load.batch_size, load.window_ms, load.model) == (8, 4, 2000, "spam")


@pytest.mark.parametrize(
    "change",
    [{"concurrencies": ()}, {"concurrencies": (1, 1)}, {"batch_sizes": (0,)}, {"instances": (1, -2)}],
)
def test_wrong_axes_are_refused(change):
    with pytest.raises(ConchError):
        dataclasses.replace(PLAN, **change)


@pytest.mark.parametrize(("max_batch_size", "right"), [(0, False), (3, False), (4, True), (64, True)])
def test_batches_that_the_model_does_not_take_are_found_before(max_batch_size, right):
    if right:
        check_batches(PLAN, max_batch_size)
        return
    with pytest.raises(ConchError, match="rows a request"):
        check_batches(PLAN, max_batch_size)


def test_one_row_is_right_for_a_model_without_batches():
    check_batches(dataclasses.replace(PLAN, batch_sizes=(1,)), 0)


def test_the_rest_takes_as_long_as_what_was_measured():
    assert remaining_s(PLAN, 8, []) == pytest.approx(8 * 8.0)
    assert remaining_s(PLAN, 5, [3.0, 100.0, 4.0]) == pytest.approx(20.0)
    assert remaining_s(PLAN, 0, [3.0]) == 0


@pytest.mark.parametrize(
    ("duration_s", "words"), [(0, "0 s"), (59.6, "60 s"), (150, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_read_as_people_say_them(duration_s, words):
    assert in_words(duration_s) == words


@pytest.mark.parametrize(("text", "found"), [("1,8,32", (1, 8, 32)), ("4", (4,)), (None, None)])
def test_lists_of_numbers(text, found):
    assert numbers(None, None, text) == found


@pytest.mark.parametrize("text", ["", "1,,2", "0", "-1", "a", "1,1", "1.5"])
def test_wrong_lists_of_numbers(text):
    with pytest.raises(click.BadParameter):
        numbers(None, None, text)


def test_the_file_gives_back_what_was_written(tmp_path: Path):
    sweep = begun()
    sweep = sweep.with_point(Cell(1, 1, 1), point(Cell(1, 1, 1)), "3", "config 1")
    sweep = sweep.with_point(Cell(2, 4, 8), point(Cell(2, 4, 8)), "3", "config 2")
    sweep = sweep.with_failure(Cell(1, 4, 8), "no answer")
    record.write(sweep, tmp_path)
    assert record.read(tmp_path) == sweep
    assert record.read(tmp_path / record.FILE) == sweep
    assert [run.result.config_text for run in sweep.runs] == ["config 1", "config 2"]
    assert json.loads((tmp_path / record.FILE).read_text())["finished"] is False


def test_what_is_left_is_what_was_not_tried():
    sweep = begun().with_point(Cell(1, 1, 1), point(Cell(1, 1, 1)), "3", "").with_failure(Cell(1, 1, 8), "no")
    assert sweep.left == PLAN.cells[2:]
    assert sweep.without_failures().left == PLAN.cells[1:]


def test_as_configured_is_a_number_of_instances_too(tmp_path: Path):
    plan = dataclasses.replace(PLAN, instances=(None,))
    cell = Cell(None, 1, 8)
    sweep = begun(plan).with_point(cell, point(cell), "1", "")
    record.write(sweep, tmp_path)
    assert record.read(tmp_path).measured == {cell: point(cell)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "sweep", "format": 1}', '{"kind": "sweep", "format": 9}'])
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, text: str):
    (tmp_path / record.FILE).write_text(text)
    with pytest.raises(ConchError):
        record.read(tmp_path)


def test_the_newest_of_a_name(tmp_path: Path):
    assert record.newest(tmp_path, "spam") is None
    for folder in ("spam/20260101T000000", "spam/20260102T000000", "eggs/20270101T000000"):
        record.write(begun(), tmp_path / folder)
    assert record.newest(tmp_path, "spam") == tmp_path / "spam/20260102T000000"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (str(ConchError("no load", where="spam", got="queue full", fix="less")), "no load: queue full"),
        ("Connection refused", "Connection refused"),
        ("", ""),
    ],
)
def test_an_error_in_one_line_says_what_came(error: str, line: str):
    assert record.brief(error) == line
