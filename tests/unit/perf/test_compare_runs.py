"""Two results compared: which loads meet, what the ratios are, and when a difference is noise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from conch.errors import ConchError
from perf.compare_runs import compare as command
from perf.points import Load, Machine, Point, RunResult, save
from perf.run_ratios import Measurement, compare, too_slow
from perf.sweep import record
from perf.sweep.plan import Plan
from perf.sweep.target import Serving
from perf.version_rounds import Rounds, Turn, Version, parse_version, take_turns, whole_rounds

MACHINE = Machine("a cpu", 2, 8.0, "3.11", "2.51.0", "Linux")


def point(rate: float = 100.0, p50: float = 10.0, p99: float = 20.0, concurrency: int = 8, **changes: object) -> Point:
    load = Load("spam", concurrency=concurrency)
    made = Point(load, rate, rate, {"p50": p50, "p99": p99}, requests=100)
    return dataclasses.replace(made, **changes)


def measured(*points: Point) -> list[Measurement]:
    return [Measurement(each) for each in points]


def rates(*values: float) -> list[Measurement]:
    return measured(*(point(value) for value in values))


def of_throughput(a: Sequence[Measurement], b: Sequence[Measurement], *, in_turns: bool = False):
    (level,), _, _ = compare(a, b, in_turns=in_turns)
    return level.ratios[0]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        # Once each, stable within 10 %: 0.9 / 1.1 and 1.1 / 0.9 around the ratio.
        ([100], [100], "none"),
        ([100], [121], "none"),
        ([100], [123], "faster"),
        ([100], [82], "none"),
        ([100], [81], "slower"),
        # Repeated: faster only where the slowest of one beats the fastest of the other.
        ([100, 101, 99], [104, 105, 103], "faster"),
        ([100, 104, 99], [104, 105, 103], "none"),
        ([100, 101, 99], [97, 98, 96], "slower"),
        ([100, 150, 60], [90, 140, 80], "none"),
        # One side repeated: the other is as steady as it was asked to be.
        ([100, 101, 99], [108], "none"),
        ([100, 101, 99], [113], "faster"),
    ],
)
def test_a_difference_within_the_noise_is_none(a: list[float], b: list[float], verdict: str):
    assert of_throughput(rates(*a), rates(*b)).verdict == verdict


@pytest.mark.parametrize(
    ("b", "verdict", "basis"),
    [
        # The machine slows down by half from round to round; B is 5 % faster in each.
        ([105, 84, 63, 42, 21], "faster", "rounds"),
        ([105, 84, 63, 42, 19], "none", "rounds"),
        ([95, 76, 57, 38, 19], "slower", "rounds"),
    ],
)
def test_rounds_are_compared_within_each(b: list[float], verdict: str, basis: str):
    ratio = of_throughput(rates(100, 80, 60, 40, 20), rates(*b), in_turns=True)
    assert (ratio.verdict, ratio.basis) == (verdict, basis)


def test_a_ratio_of_rounds_is_their_median():
    ratio = of_throughput(rates(100, 100, 100, 100, 100), rates(110, 120, 130, 140, 500), in_turns=True)
    assert (ratio.low, ratio.ratio, ratio.high) == pytest.approx((1.1, 1.3, 5.0))


def test_few_rounds_are_compared_as_any_repeated_points():
    assert of_throughput(rates(100, 80, 60), rates(105, 84, 63), in_turns=True).verdict == "none"


def test_the_same_points_out_of_turn_are_drift():
    assert of_throughput(rates(100, 80, 60, 40, 20), rates(105, 84, 63, 42, 21)).verdict == "none"


def test_less_latency_is_faster():
    (level,), _, _ = compare(measured(point(p50=10, p99=40)), measured(point(p50=20, p99=10)))
    assert [(r.figure, r.ratio, r.verdict) for r in level.ratios] == [
        ("inferences_per_second", 1.0, "none"),
        ("p50_ms", 2.0, "slower"),
        ("p99_ms", 0.25, "faster"),
    ]
    assert [r.slower_percent for r in level.ratios] == pytest.approx([0.0, 100.0, 0.0])


def test_of_a_single_unstable_point_nothing_is_said():
    ratio = of_throughput(rates(100), measured(point(300, stable=False)))
    assert (ratio.verdict, ratio.basis) == ("unclear", "unstable")
    repeated = of_throughput(rates(100, 101), measured(*(point(rate, stable=False) for rate in (300, 310))))
    assert repeated.verdict == "faster"


def test_a_wider_stability_is_more_noise():
    loose = dataclasses.replace(point(130), load=Load("spam", concurrency=8, stability_percent=30))
    assert of_throughput(rates(100), rates(130)).verdict == "faster"
    assert of_throughput(rates(100), measured(loose)).verdict == "none"


def test_loads_meet_whatever_the_version_and_the_window():
    other = dataclasses.replace(point(), load=Load("spam", version="4", concurrency=8, window_ms=99))
    levels, only_a, only_b = compare(rates(100), measured(other))
    assert (len(levels), only_a, only_b) == (1, [], [])


def test_loads_that_only_one_has_are_named():
    batched = dataclasses.replace(point(), load=Load("spam", concurrency=8, batch_size=4))
    levels, only_a, only_b = compare(measured(point(), point(concurrency=1)), measured(point(), batched))
    assert [level.label for level in levels] == ["batch 1, 8 in flight"]
    assert (only_a, only_b) == (["batch 1, 1 in flight"], ["batch 4, 8 in flight"])


def test_instances_keep_points_apart():
    a = [Measurement(point(100), 1), Measurement(point(200), 2)]
    b = [Measurement(point(100), 1), Measurement(point(300), 2)]
    levels, _, _ = compare(a, b)
    assert [(level.label, level.ratios[0].verdict) for level in levels] == [
        ("instances 1, 8 in flight", "none"),
        ("instances 2, 8 in flight", "faster"),
    ]


@pytest.mark.parametrize(
    ("a", "b", "percent", "found"),
    [
        (point(), point(50), 40, ["inferences/s 50.0 % slower"]),
        (point(), point(50), 60, []),
        (point(), point(95), 1, []),  # within the noise
        (point(), point(p99=60), 100, ["p99 ms 200.0 % slower"]),
        (point(), point(300, 1, 1), 0, []),
        (point(), point(failures=3), 5, ["3 requests failed, 0 before"]),
        (point(failures=3), point(failures=3), 5, []),
        (point(), point(50, stable=False), 5, []),
    ],
)
def test_the_gate_asks_for_more_than_noise(a: Point, b: Point, percent: float, found: list[str]):
    levels, _, _ = compare(measured(a), measured(b))
    assert too_slow(levels, percent) == [f"8 in flight: {line}" for line in found]


def test_a_figure_that_is_missing_is_left_out():
    (level,), _, _ = compare(rates(100), measured(point(latency_ms={"p50": 1.0})))
    assert [ratio.figure for ratio in level.ratios] == ["inferences_per_second", "p50_ms"]


def written(folder: Path, name: str, *points: Point, machine: Machine = MACHINE) -> str:
    at = "2026-01-02T03:04:05+00:00"
    return str(save(RunResult(name, at, machine, "spam", "3", "", points, ()), folder))


@pytest.mark.parametrize(
    ("rate", "arguments", "code"),
    [
        (50, [], 0),
        (50, ["--fail-if-slower", "10"], 1),
        (50, ["--fail-if-slower", "60"], 0),
        (200, ["--fail-if-slower", "0"], 0),
    ],
)
def test_the_exit_code_tells_a_pipeline(tmp_path: Path, rate: float, arguments: list[str], code: int):
    a, b = written(tmp_path, "a", point()), written(tmp_path, "b", point(rate))
    done = CliRunner().invoke(command, [a, b, "--json", *arguments])
    assert done.exit_code == code, done.output
    document = json.loads(done.stdout)
    assert document["levels"][0]["ratios"][0]["ratio"] == pytest.approx(rate / 100)
    assert bool(document["slower_than_allowed"]) == bool(code)


def test_what_fails_only_in_b_closes_the_gate(tmp_path: Path):
    plan = Plan(Load("spam", concurrency=1), (1, 8))
    begun = record.Sweep("spam", "2026-01-02T03:04:05+00:00", plan, MACHINE)
    first = begun.with_point(plan.cells[0], point(concurrency=1), "3", "")
    record.write(first.with_point(plan.cells[1], point(), "3", ""), tmp_path / "a")
    record.write(first.with_failure(plan.cells[1], "the queue is full"), tmp_path / "b")
    sides = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert CliRunner().invoke(command, sides).exit_code == 0
    done = CliRunner().invoke(command, [*sides, "--fail-if-slower", "10", "--json"])
    assert done.exit_code == 1
    assert "the queue is full" in json.loads(done.stdout)["failed_only_in_b"][0]


def test_results_without_a_load_in_common_are_refused(tmp_path: Path):
    a, b = written(tmp_path, "a", point()), written(tmp_path, "b", point(concurrency=1))
    done = CliRunner().invoke(command, [a, b])
    assert isinstance(done.exception, ConchError)
    assert "no load in common" in str(done.exception)


def test_a_version_is_not_compared_with_a_file(tmp_path: Path):
    done = CliRunner().invoke(command, [written(tmp_path, "a", point()), "spam:3"])
    assert done.exit_code == 2
    assert "two versions as NAME:N" in done.output


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("spam:3", Version("spam", 3)),
        ("a.b-c_d:12", Version("a.b-c_d", 12)),
        ("spam", None),
        ("spam:0", None),
        ("x/y:1", None),
    ],
)
def test_versions_on_the_command_line(text: str, found: Version | None):
    assert parse_version(text) == found


class Server:
    """Answers by the name that it was given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def at(self, instances: int | None) -> Serving:
        return Serving(f"grpc://{self.name}", f"http://{self.name}", "1", "")


def test_the_versions_take_turns_and_another_goes_first_each_round():
    asked: list[str] = []

    def ask(load: Load, url: str) -> Point:
        asked.append(f"{url[-1]}{load.concurrency}")
        if asked.count("b8") == 2 and asked[-1] == "b8":
            raise ConchError("refused")
        return point(len(asked), concurrency=load.concurrency or 0)

    rounds = Rounds(2, (1, 8))
    loads = (rounds.loads("spam"), rounds.loads("spam"))
    turns = list(take_turns((Server("a"), Server("b")), loads, 2, ask))
    assert asked == ["a1", "b1", "a8", "b8", "b1", "a1", "b8", "a8"]
    assert len(turns) == rounds.turns
    assert [turn.error for turn in turns if turn.point is None] == ["refused"]
    of_a, of_b = whole_rounds(turns)
    assert [p.inferences_per_second for p in of_a] == [1, 3, 6]  # without the round in which B failed
    assert [p.inferences_per_second for p in of_b] == [2, 4, 5]


def test_no_points_are_kept_of_a_round_with_one_side():
    turns = [Turn(0, 0, Load("spam", concurrency=1), point()), Turn(0, 1, Load("spam", concurrency=1), None, "no")]
    assert whole_rounds(turns) == ([], [])
