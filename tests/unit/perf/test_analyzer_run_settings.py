from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch.errors import ConchError
from perf.perf_cli import perf
from perf.points import Load, Point
from perf.run import session, settings
from perf.run.memory import Sample, slope_per_minute, used_megabytes


@pytest.mark.parametrize("name", settings.NAMES)
def test_each_named_configuration_is_right_and_says_what_for(name: str) -> None:
    found = settings.read(name)
    assert found.name == name
    assert found.about
    assert found.loads("spam")
    assert (settings.NAMED / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


def test_loads_come_in_the_order_of_the_file_as_often_as_it_says() -> None:
    found = settings.from_mapping({"concurrency": [4, 64, 4], "repeat": 2, "protocol": "http"}, "spike")
    loads = found.loads("spam", "3")
    assert [load.concurrency for load in loads] == [4, 64, 4, 4, 64, 4]
    assert {(load.model, load.version, load.protocol) for load in loads} == {("spam", "3", "http")}


def test_a_request_rate_makes_an_open_loop() -> None:
    (load,) = settings.from_mapping({"request_rate_per_second": 50, "arrivals": "poisson"}, "open").loads("spam")
    assert load == Load("spam", request_rate_per_second=50.0, arrivals="poisson")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "neither"),
        ({"concurrency": 1, "request_rate_per_second": 1}, "both"),
        ({"concurrency": []}, "empty"),
        ({"concurrency": "8"}, "whole number"),
        ({"concurrency": [1, 2.5]}, "whole number"),
        ({"concurrency": True}, "whole number"),
        ({"concurrency": -1}, "above zero"),
        ({"concurrency": 1, "windows_ms": 5}, "did you mean window_ms?"),
        ({"concurrency": 1, "window_ms": "5 s"}, "window_ms"),
        ({"concurrency": 1, "protocol": "udp"}, "grpc or http"),
        ({"concurrency": 1, "repeat": 0}, "repeat"),
        ({"concurrency": 1, "arrivals": "poisson"}, "request rate"),
    ],
)
def test_a_wrong_configuration_is_told_by_its_key(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ConchError) as caught:
        settings.from_mapping(document, "mine", "mine.yaml")
    assert says in str(caught.value)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n", "a: [\n", ""])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConchError) as caught:
        settings.read(str(path))
    assert str(path) in str(caught.value)


def test_a_misspelt_name_is_told() -> None:
    with pytest.raises(ConchError, match="no such configuration") as caught:
        settings.read("throughptu")
    assert "throughput" in str(caught.value)


def point(per_second: float, p99_ms: float) -> Point:
    return Point(Load("spam", concurrency=4), per_second, per_second, {"p99": p99_ms})


@pytest.mark.parametrize(
    ("points", "due"),
    [
        ([], None),
        ([point(100, 5)], None),
        ([point(100, 5), point(95, 5.5)], "it got no worse"),
        ([point(100, 5), point(70, 5)], "it got worse"),
        ([point(100, 5), point(100, 5), point(100, 9)], "it got worse"),
    ],
)
def test_a_load_measured_again_shows_drift(points: list[Point], due: str | None) -> None:
    notes = session.drifts(points)
    assert [due in note for note in notes] == ([True] if due else []) if due else not notes


def test_memory_that_grows_is_told_by_its_slope() -> None:
    samples = [Sample(60.0 * minute, 800.0 + 2 * minute) for minute in range(10)]
    assert slope_per_minute(samples) == pytest.approx(2.0)
    assert "+2.00 MB a minute" in session.memory_notes(samples)[0]
    assert "slope" not in session.memory_notes([Sample(20.0 * n, 800.0 + n) for n in range(3)])[0]
    assert slope_per_minute(samples[:2]) is None
    assert session.memory_notes(samples[:2]) == []


def test_the_memory_of_a_process_can_be_read() -> None:
    import os

    held = used_megabytes(os.getpid())
    assert held is not None
    assert held > 1
    assert used_megabytes(2**22 + 1) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concurrency", "1,x"], "START:END:STEP"),
        (["--concurrency", "0"], "START:END:STEP"),
        (["--concurrency", "8:16:0"], "START:END:STEP"),
        (["--concurrency", "1", "--request-rate", "5"], "exclude each other"),
        (["--serve", "--url", "http://x:1"], "choose one"),
        (["--protocol", "udp"], "udp"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(perf, ["run", "spam", *arguments])
    assert result.exit_code == 2
    assert says in result.output


def test_ranges_may_be_written_short() -> None:
    from perf.run.cli import Loads

    assert Loads(int).convert("8:32:8", None, None) == (8, 16, 24, 32)
    assert Loads(int).convert("1:3", None, None) == (1, 2, 3)
    assert Loads(float).convert("1,2.5", None, None) == (1.0, 2.5)


@pytest.mark.parametrize("name", ["run", "install"])
def test_help_shows_examples(name: str) -> None:
    result = CliRunner().invoke(perf, [name, "--help"])
    assert result.exit_code == 0
    assert f"conch perf {name}" in result.output
