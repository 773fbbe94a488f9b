"""The report: results of all kinds read, series told apart, plots drawn, a page that is whole and safe."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from conch.errors import ConchError
from perf.points import Load, Machine, Point, RunResult, save
from perf.report.cli import report
from perf.report.figures import batch_groups
from perf.report.page import number, render
from perf.report.plots import as_svg, plots_of
from perf.report.results import Row, read_all, series_of
from perf.sweep import record
from perf.sweep.plan import Cell, Plan

MACHINE = Machine("a <cpu>", 2, 8.0, "3.11", "2.51.0", "Linux")
NASTY = '<script>alert("x")</script> & $a_b$'
SERVER_MS = {"queue": 1.0, "compute_input": 0.5, "compute_infer": 4.0, "compute_output": 0.5}


def point(concurrency: int = 8, batch_size: int = 1, rate: float = 100.0, **changes: object) -> Point:
    load = Load("spam", concurrency=concurrency, batch_size=batch_size)
    latency_ms = {"avg": 8.0, "p50": 7.0, "p90": 9.0, "p95": 10.0, "p99": 20.0}
    made = Point(load, rate / batch_size, rate, latency_ms, SERVER_MS, 3.0, 500, batch_sizes={1: 5, 4: 15})
    return dataclasses.replace(made, **changes)


def run(*points: Point, name: str = "smoke", at: str = "2026-01-02T03:04:05+00:00") -> RunResult:
    return RunResult(name, at, MACHINE, "spam", "3", 'name: "spam"\n', points, ("a note",))


def swept(folder: Path, name: str = "spam") -> Path:
    plan = Plan(Load("spam", concurrency=1), (1, 8, 32), (1, 8), (1, 2), "spam")
    sweep = record.Sweep(name, "2026-01-02T03:04:05+00:00", plan, MACHINE, notes=(f"{NASTY} note",))
    for cell in plan.cells[:-2]:
        made = point(cell.concurrency, cell.batch_size, stable=cell.concurrency != 8)
        sweep = sweep.with_point(cell, made, "3", f"# {NASTY}")
    sweep = sweep.with_failure(Cell(2, 8, 8), f"refused {NASTY}")
    return record.write(sweep, folder).parent


class Page(HTMLParser):
    """Every element and attribute of a page, and its text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*paths: Path, drawn: bool = True) -> Page:
    results = read_all(paths)
    series = series_of(results)
    return Page(render(results, series, plots_of(series) if drawn else []))


def test_a_sweep_and_runs_are_read_alike(tmp_path: Path):
    folder = swept(tmp_path / "sweep")
    saved = save(run(point()), tmp_path / "runs")
    found = read_all([folder, saved, saved.parent])
    assert [result.title for result in found] == ["spam", "smoke"]  # one file named twice is one result
    assert len(found[0].rows) == 10
    assert len(found[0].failures) == 1
    assert found[0].unfinished == "1 of 12 combinations not measured yet"


def test_results_of_one_name_are_told_apart(tmp_path: Path):
    save(run(point()), tmp_path)
    save(run(point()), tmp_path)
    save(run(point(), at="2026-02-02T03:04:05+00:00"), tmp_path)
    titles = [result.title for result in read_all([tmp_path])]
    assert len(set(titles)) == 3
    assert all("smoke" in title for title in titles)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": 1}', '{"kind": "sweep"}'])
def test_what_is_no_result_is_refused_by_its_path(tmp_path: Path, content: str | None):
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConchError) as error:
        read_all([path])
    assert "wrong.json" in str(error.value)


def test_a_folder_without_results_is_refused(tmp_path: Path):
    with pytest.raises(ConchError, match="no result"):
        read_all([tmp_path])


def test_a_result_without_points_is_refused(tmp_path: Path):
    with pytest.raises(ConchError, match="no point"):
        read_all([save(run(), tmp_path)])


def test_series_differ_in_what_their_labels_say(tmp_path: Path):
    series = series_of(read_all([swept(tmp_path)]))
    assert [one.label for one in series] == [
        "instances 1, batch 1", "instances 1, batch 8", "instances 2, batch 1", "instances 2, batch 8",
    ]  # fmt: skip
    assert series[0].levels == ["1", "8", "32"]


def test_of_repeated_points_the_median_stands_for_all(tmp_path: Path):
    rates = (90.0, 300.0, 100.0)
    (series,) = series_of(read_all([save(run(*(point(rate=rate) for rate in rates)), tmp_path)]))
    assert [row.point.inferences_per_second for row in series.rows] == [100.0]
    assert series.label == "smoke"


def test_open_and_closed_loops_are_series_of_their_own(tmp_path: Path):
    rated = dataclasses.replace(point(), load=Load("spam", request_rate_per_second=50.0, arrivals="poisson"))
    series = series_of(read_all([save(run(point(), rated), tmp_path)]))
    assert [(one.label, one.levels) for one in series] == [
        ("closed loop", ["8"]),
        ("open loop, poisson", ["50/s"]),
    ]


@pytest.mark.parametrize(
    ("changes", "rest"),
    [
        ({}, 2.0),
        ({"server_ms": {}}, None),
        ({"latency_ms": {"p50": 1.0}}, None),
        ({"server_ms": {"queue": 99.0}}, 0.0),  # clocks differ: never below zero
    ],
)
def test_the_network_and_the_client_have_what_the_server_has_not(changes: dict[str, object], rest: float | None):
    assert Row("r", None, point(**changes)).network_and_client_ms == rest


def test_batch_sizes_are_grouped_when_they_are_many():
    assert batch_groups({1, 2, 7}) == {"1": range(1, 2), "2": range(2, 3), "7": range(7, 8)}
    many = batch_groups(set(range(1, 13)))
    assert list(many) == ["1", "2", "3-4", "5-8", "9-16"]
    huge = batch_groups(set(range(1, 2000)))
    assert all(sum(size in group for group in huge.values()) == 1 for size in (1, 2, 3, 64, 65, 200, 1999))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["throughput-latency", "percentiles", "where-time-goes", "batch-sizes"]),
        ({"batch_sizes": None}, ["throughput-latency", "percentiles", "where-time-goes", "batch-sizes"]),
        ({"batch_sizes": None, "average_batch": None, "server_ms": {}}, ["throughput-latency", "percentiles"]),
    ],
)
def test_plots_are_those_that_there_are_figures_for(tmp_path: Path, changes: dict[str, object], names: list[str]):
    series = series_of(read_all([save(run(point(1, **changes), point(8, **changes)), tmp_path)]))
    plots = plots_of(series)
    assert [plot.name for plot in plots] == names
    assert all(as_svg(plot, series).startswith("<svg") for plot in plots)


def test_plots_take_the_pages_ink(tmp_path: Path):
    series = series_of(read_all([save(run(point(1), point(8, stable=False)), tmp_path)]))
    for plot in plots_of(series):
        drawn = as_svg(plot, series)
        assert "currentColor" in drawn
        assert not re.search(r"(fill|stroke): #(000000|0a0b0c|ffffff)", drawn), plot.name


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path):
    page = page_of(swept(tmp_path))
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    namespaces = {"xmlns", "xmlns:xlink"}
    outside = [(n, v) for n, v in page.attributes if "//" in v and n not in namespaces]
    assert outside == []
    references = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in references)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes


@pytest.mark.parametrize("place", ["name", "model", "note", "config", "warning", "cpu"])
def test_what_comes_from_a_result_is_shown_and_not_run(tmp_path: Path, place: str):
    result = run(point(warnings=(NASTY,)) if place == "warning" else point())
    changes = {
        "name": {"name": NASTY},
        "model": {"model": NASTY},
        "note": {"notes": (NASTY,)},
        "config": {"config_text": NASTY},
        "warning": {},
        "cpu": {"machine": dataclasses.replace(MACHINE, cpu=NASTY)},
    }[place]
    page = page_of(save(dataclasses.replace(result, **changes), tmp_path), drawn=False)
    assert "script" not in page.tags
    assert NASTY in page.text


def test_names_in_the_plots_are_escaped_and_written_as_they_are(tmp_path: Path):
    first = save(run(point(), name=NASTY), tmp_path)
    second = save(run(point(), name="_other\x00 name"), tmp_path)
    series = series_of(read_all([first, second]))
    drawn = Page(as_svg(plots_of(series)[0], series))
    assert "script" not in drawn.tags
    assert NASTY in drawn.text  # text, not outlines; and no formula
    assert "_other name" in drawn.text


def test_unstable_and_failed_points_are_marked(tmp_path: Path):
    results = read_all([swept(tmp_path)])
    series = series_of(results)
    html = render(results, series, [])
    assert html.count('<tr class="unstable">') == 3
    assert html.count('<tr class="failed">') == 1
    assert "3 unstable" in html
    assert "8*" in as_svg(plots_of(series)[1], series)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.123, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (123.4, "123"), (45678.9, "45679")],
)
def test_figures_have_three_digits_that_matter(value: float | None, text: str):
    assert number(value) == text


def test_the_command_writes_the_page_and_the_plots(tmp_path: Path):
    result = save(run(point(1), point(8, stable=False)), tmp_path)
    asked = [str(result), "-o", str(tmp_path / "new/page.html"), "--png", str(tmp_path / "png"), "--json"]
    done = CliRunner().invoke(report, asked)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["points"], document["unstable_points"], document["failed_points"]) == (2, 1, 0)
    assert Path(document["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    sizes = [struct.unpack(">II", Path(path).read_bytes()[16:24]) for path in document["plots"]]
    assert len(sizes) == 4
    assert all(width > 1000 and height > 400 for width, height in sizes)


def test_a_sweep_in_which_all_failed_is_a_page_without_plots(tmp_path: Path):
    plan = Plan(Load("spam", concurrency=1), (1,))
    sweep = record.Sweep("spam", "2026-01-02T03:04:05+00:00", plan, MACHINE)
    record.write(sweep.with_failure(plan.cells[0], "no answer"), tmp_path)
    done = CliRunner().invoke(report, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "no answer" in (tmp_path / "report.html").read_text(encoding="utf-8")
