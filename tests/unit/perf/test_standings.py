"""The comparison's arithmetic and its table."""

from __future__ import annotations

import pytest

from perf.contenders.entries import Role
from perf.load_loop import LoadResult
from perf.standings import compare, markdown, rows


def load(rps: float, p99_ms: float, failures: int = 0) -> LoadResult:
    return LoadResult(8, 100, failures, rps, 1.0, p99_ms)


RUNS = {
    "plain": [load(100, 20), load(10, 200), load(100, 20)],
    "tuned": [load(110, 25), load(11, 250), load(120, 25)],
    "broken": [load(900, 1, failures=7), load(900, 1), load(900, 1)],
    "bare": [load(200, 5), load(20, 50), load(200, 5)],
    "ours": [load(220, 10), load(22, 100), load(120, 10)],
}
ROLES: dict[str, Role] = {"plain": "other", "tuned": "other", "broken": "other", "bare": "limit", "ours": "ours"}


def test_ratios_are_over_the_best_other_and_within_a_round() -> None:
    plain, tuned, broken, bare, ours = compare(RUNS, ROLES)
    assert (plain.rps_over_best_other, tuned.p99_over_best_other, bare.rps_over_best_other) == (None, None, None)
    # Requests: 220/110, 22/11, 120/120 of tuned; p99: 10/20, 100/200, 10/20 of plain; 1.1, 1.1, 0.6 of bare.
    assert (ours.rps_over_best_other, ours.p99_over_best_other) == (2.0, 0.5)
    assert ours.rps_over_limit == pytest.approx(1.1)
    assert ours.rps_over_framework is None
    assert [s.failures for s in (plain, broken, ours)] == [0, 7, 0]


def test_medians_come_with_the_least_and_the_most() -> None:
    tuned = compare(RUNS, ROLES)[1]
    assert (tuned.requests_per_second, tuned.requests_per_second_range) == (110, (11, 120))
    assert (tuned.p99_ms, tuned.p99_ms_range) == (25, (25, 250))


def test_without_others_there_are_no_ratios() -> None:
    (ours,) = compare({"ours": RUNS["ours"]}, ROLES)
    assert (ours.rps_over_best_other, ours.p99_over_best_other, ours.rps_over_limit) == (None, None, None)


def test_the_table_shows_every_server() -> None:
    standings = compare(RUNS, ROLES)
    assert [row[1] for row in rows(standings)] == list(RUNS)
    assert rows(standings)[4][2:] == ("120 (22 to 220)", "10.0 (10.0 to 100.0)", "", "2.00", "0.50", "1.10", "")
    lines = markdown(standings)
    assert lines[4].startswith("| 8 | broken | 900 (900 to 900) |")
    assert len({line.count("|") for line in lines}) == 1
