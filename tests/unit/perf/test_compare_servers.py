"""How the comparison runs: order, variants, answers, files. Contenders are small fakes; no server is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from conch.errors import ConchError
from perf.compare_servers import main, write_results
from perf.contenders.entries import Entry, Role, Target, Variant
from perf.contenders.environments import Unavailable
from perf.contenders.rounds import Plan, check_same_answers, in_turn, run_workload
from perf.contenders.workloads import WORKLOADS
from perf.load_loop import LoadResult
from perf.points import Machine

PLAN = Plan(levels=(1, 8), duration_s=1.0, warmup_s=0.0, rounds=3, trial_s=0.1)
MACHINE = Machine("a processor", 2, 8.0, "3.11", "Triton", "Linux")


class Field:
    """Contenders that write down what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def entry(
        self,
        key: str,
        role: Role,
        rates: dict[str, float],
        *,
        resident: bool = True,
        answer: float = 1.0,
        missing: bool = False,
    ) -> Entry:
        @contextmanager
        def start(label: str) -> Iterator[list[Target]]:
            if missing:
                raise Unavailable("its environment cannot be made: no network")
            self.events.append(f"start {key}")

            def load(connections: int, duration_s: float, warmup_s: float) -> LoadResult:
                self.events.append(f"{key} {connections}")
                return LoadResult(connections, 10, 0, rates[label] * connections, 1.0, 2.0)

            try:
                yield [Target(key, lambda _: {"score": np.array([answer])}, load)]
            finally:
                self.events.append(f"stop {key}")

        variants = tuple(Variant(label, lambda label=label: start(label)) for label in rates)  # type: ignore[misc]
        return Entry(key, key, role, variants, resident=resident)

    def all(self) -> list[Entry]:
        return [
            self.entry("fastapi", "other", {"2 workers": 50}),
            self.entry("litserve", "other", {"off": 10, "on": 20}),
            self.entry("bentoml", "other", {"off": 10, "on": 20}, missing=True),
            self.entry("ray", "other", {"off": 5}, resident=False),
            self.entry("conch", "ours", {"as exported": 100}),
        ]


@pytest.fixture
def field() -> Field:
    return Field()


@pytest.fixture(autouse=True)
def _no_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "perf.contenders.rounds.idle_cores", lambda targets: 0.5 if targets[0].name == "greedy" else 0.0
    )


def test_another_server_goes_first_each_round() -> None:
    assert ["".join(in_turn("abcd", turn)) for turn in range(5)] == ["abcd", "bcda", "cdab", "dabc", "abcd"]


def test_the_fastest_variant_takes_part_in_every_round(field: Field) -> None:
    outcome = run_workload(WORKLOADS["text"], field.all(), PLAN)
    assert outcome.chosen["litserve"] == "on"
    assert [run.requests_per_second for run in outcome.runs[8]["litserve (on)"]] == [160] * 3
    assert outcome.trials["litserve"]["on"] > outcome.trials["litserve"]["off"]


def test_one_that_cannot_be_made_is_left_out_with_its_reason(field: Field) -> None:
    outcome = run_workload(WORKLOADS["text"], field.all(), PLAN)
    assert outcome.skipped == {"bentoml": "its environment cannot be made: no network"}
    assert {s.server for s in outcome.standings()} == {"fastapi", "litserve (on)", "ray", "conch"}


def test_one_that_is_not_resident_runs_in_its_turn_alone(field: Field) -> None:
    run_workload(WORKLOADS["text"], field.all(), PLAN)
    events = " | ".join(field.events)
    assert events.count("start ray | ray 1 | ray 8 | stop ray") == PLAN.rounds
    assert field.events.count("start conch") == 1


def test_one_that_takes_processor_time_while_it_waits_runs_in_its_turn_alone(field: Field) -> None:
    entries = [*field.all(), field.entry("greedy", "other", {"on": 5})]
    run_workload(WORKLOADS["text"], entries, PLAN)
    events = " | ".join(field.events)
    assert events.count("start greedy | greedy 1 | greedy 8 | stop greedy") == PLAN.rounds


def test_all_are_stopped_when_it_is_interrupted(field: Field) -> None:
    def interrupt(*_: float) -> LoadResult:
        raise KeyboardInterrupt

    @contextmanager
    def start() -> Iterator[list[Target]]:
        yield [Target("bare", lambda _: {"score": np.array([1.0])}, interrupt)]

    entries = [*field.all(), Entry("bare", "bare", "limit", (Variant("", start),))]
    with pytest.raises(KeyboardInterrupt):
        run_workload(WORKLOADS["text"], entries, PLAN)
    started = sorted(event.split()[1] for event in field.events if event.startswith("start"))
    assert started == sorted(event.split()[1] for event in field.events if event.startswith("stop"))
    assert {"conch", "fastapi"} < set(started)


def test_different_answers_are_not_compared(field: Field) -> None:
    entries = [field.entry("fastapi", "other", {"2 workers": 50}, answer=1.01), *field.all()[-1:]]
    with pytest.raises(ConchError, match="fastapi answers otherwise than conch"):
        run_workload(WORKLOADS["text"], entries, PLAN)
    assert not [event for event in field.events if event.startswith("fastapi ")]


def target(**answer: object) -> Target:
    return Target("x", lambda _: {name: np.array(value) for name, value in answer.items()}, lambda *_: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("answer", "exact", "same"),
    [
        ({"label": ["a"], "scores": [0.5, 0.500001]}, True, True),
        ({"label": "a", "scores": [[0.5, 0.5]]}, True, True),
        ({"label": ["b"], "scores": [0.5, 0.5]}, True, False),
        ({"label": ["a"], "scores": [0.5, 0.51]}, True, False),
        ({"label": ["a"], "scores": [0.5, 0.51]}, False, True),
        ({"label": ["a"], "scores": [0.5, -0.5]}, False, False),
        ({"label": ["a"], "scores": [0.5]}, True, False),
    ],
)
def test_same_answers(answer: dict[str, object], exact: bool, same: bool) -> None:
    expected = target(label=["a"], scores=[0.5, 0.5])
    if same:
        check_same_answers(expected, target(**answer), exact=exact)
    else:
        with pytest.raises(ConchError, match="answers otherwise"):
            check_same_answers(expected, target(**answer), exact=exact)


def test_the_files_are_a_table_a_picture_and_json_without_nan(field: Field, tmp_path: Path) -> None:
    outcome = run_workload(WORKLOADS["text"], field.all(), PLAN)
    outcome.runs[8]["ray"][0] = LoadResult(8, 0, 0, 0.0, float("nan"), float("nan"))
    write_results([outcome], PLAN, MACHINE, tmp_path / "proof")
    document = json.loads((tmp_path / "proof.json").read_text(), parse_constant=pytest.fail)
    assert document["machine"]["cores"] == 2
    assert document["workloads"]["text"]["skipped"]
    table = (tmp_path / "proof.md").read_text()
    assert "a processor, 2 cores" in table
    assert "left out: bentoml: its environment" in table
    assert (tmp_path / "proof.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [["--workload", "texts"], ["--contenders", "nginx"], ["--connections", "1,x"]])
def test_unknown_words_are_refused_with_the_known(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "choose from" in result.output or "give numbers" in result.output
