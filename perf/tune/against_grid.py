"""How the search compares with an exhaustive grid: `python -m perf.tune.against_grid NAME`.

A grid tries every combination; then `tune` searches from bad settings (one instance, all threads, a delay of 5 ms), in
less than a fifth of the time that the grid took. At the end both bests, and the bad settings, are measured again in
turns, by the same rule for all: what a grid reports of its best is the luckiest of many. What is due: the search
reaches 0.95 of the grid's best. Run it on a machine where nothing else runs. Nothing in the repository changes.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from perf.tune.arena import ScratchArena
from perf.tune.knobs import DELAYS_MICROSECONDS, PREFERRED
from perf.tune.search import FINAL, Duel, Goal
from perf.tune.settings import Batching, ModelTuning, Tuning
from perf.tune.tunable import Subject

BAD_DELAY_MICROSECONDS = 5000
GRID_WINDOW_MS = 1000
FINAL_TURNS = 3
DUE_SHARE, DUE_TIME = 0.95, 0.2
# Of the grid's time, what the search is given: a little less than what is due, since it may end a comparison late.
GIVEN_TIME = 0.18


@dataclass(frozen=True)
class Verdict:
    """``share``: the requests/s of the search's best as a part of those of the grid's; times in seconds."""

    share: float
    gain: float
    tune_s: float
    grid_s: float
    combinations: int
    found: Tuning
    grid_best: Tuning

    @property
    def holds(self) -> bool:
        """Whether the search is good enough, soon enough."""
        return self.share >= DUE_SHARE and self.tune_s <= DUE_TIME * self.grid_s


def bad(subject: Subject) -> Tuning:
    """The settings that a search has to get away from: those of the graphs; what stands around them stays."""
    tuning = subject.start
    for tunable in subject.tunables:
        if tunable.has_graph:
            batching = Batching(BAD_DELAY_MICROSECONDS) if tunable.batches else None
            tuned = dataclasses.replace(tunable.start, instances=1, threads=0, batching=batching)
            tuning = tuning.having(tunable.name, tuned)
    return tuning


def grid(subject: Subject, cores: int) -> list[Tuning]:
    """Every combination of instances, threads and batching of the graphs, and of batching around them."""
    choices: list[list[tuple[str, ModelTuning]]] = []
    for tunable in subject.tunables:
        start = tunable.start
        batchings: Sequence[Batching | None] = [start.batching]
        counts, threads = [start.instances], [start.threads]
        if tunable.batches:
            batchings = [None, Batching()]
        if tunable.has_graph:
            if tunable.takes_instances:
                counts = list(range(1, 2 * cores + 1))
            if tunable.thread_parameter:
                threads = list(range(1, cores + 1))
            if tunable.batches:
                delays = (*DELAYS_MICROSECONDS, BAD_DELAY_MICROSECONDS)
                batchings = [None, *map(Batching, delays), *(Batching(0, (size,)) for size in PREFERRED)]
        choices.append(
            [
                (tunable.name, dataclasses.replace(start, instances=i, threads=t, batching=b))
                for i, t, b in itertools.product(counts, threads, batchings)
            ]
        )
    return [Tuning(models, subject.version) for models in itertools.product(*choices)]


def walk(arena: ScratchArena, combinations: Sequence[Tuning], goal: Goal) -> Tuning:
    """The best of all combinations, each measured once. Raises: ConchError when none is served."""
    from conch.errors import ConchError
    from conch.terminal import console

    best, best_reading = None, None
    for number, tuning in enumerate(combinations, 1):
        try:
            reading = arena.alone(tuning, GRID_WINDOW_MS)
        except ConchError as error:
            console.print(f"{number} of {len(combinations)}: {error.what}", markup=False)
            continue
        if best_reading is None or goal.gain(reading, best_reading) > 1:
            best, best_reading = tuning, reading
        console.print(f"{number} of {len(combinations)}: {reading.requests_per_second:.0f} requests/s", markup=False)
    if best is None:
        raise ConchError("No combination of the grid was served")
    return best


def ratio(arena: ScratchArena, one: Tuning, other: Tuning, goal: Goal) -> float:
    """How many times better ``other`` is: the median of several comparisons. Raises: ConchError."""
    from conch.errors import ConchError

    gains = []
    for _ in range(FINAL_TURNS):
        duel: Duel | str = arena.duel(one, other, FINAL)
        if isinstance(duel, str):
            raise ConchError("Settings are no longer served", got=duel)
        gains.append(goal.gain(duel.other, duel.best))
    return sorted(gains)[len(gains) // 2]


def compare(
    root: Path, name: str, minutes: float | None, concurrency: int, protocol: str, inputs: Path | None
) -> Verdict:
    """Grid and search on one scratch server; ``minutes`` None gives the search its share. Raises: ConchError."""
    from conch.model_config import signature_of
    from conch.repository import Repository
    from perf.analyzer.inputs import for_model
    from perf.tune.arena import scratch_arena
    from perf.tune.session import find, measure_at
    from perf.tune.tunable import look

    repository = Repository(root)
    subject = dataclasses.replace(look(repository, name), variants={})
    sent = for_model(name, signature_of(subject.configs[name]), file=inputs, repository=root)
    goal, start = Goal(), bad(subject)
    combinations = grid(subject, len(os.sched_getaffinity(0)))
    with scratch_arena(repository, subject, concurrency, 60.0, measure_at(protocol, sent)) as arena:
        begun = time.monotonic()
        best = walk(arena, combinations, goal)
        grid_s = time.monotonic() - begun
        arena.budget_s = minutes * 60 if minutes is not None else GIVEN_TIME * grid_s
        begun = time.monotonic()
        _, found, _ = find(arena, subject, start, goal, begun + arena.budget_s)
        tune_s = time.monotonic() - begun
        share = ratio(arena, best, found, goal) if found != best else 1.0
        gain = ratio(arena, start, found, goal) if found != start else 1.0
    return Verdict(share, gain, tune_s, grid_s, len(combinations), found, best)


@click.command()
@click.argument("name")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Of the search.  [default: 0.18 of the grid's]"
)
@click.option("--concurrency", type=click.IntRange(1), default=32, show_default=True)
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
@click.option("--inputs", type=click.Path(path_type=Path, exists=True))
@click.option("--repository", type=click.Path(path_type=Path), default=Path("model_repository"))
def main(
    name: str, minutes: float | None, concurrency: int, protocol: str, inputs: Path | None, repository: Path
) -> None:
    """Compare the search from bad settings with an exhaustive grid; exits with 1 when it falls short."""
    from conch.terminal import console, print_json

    verdict = compare(repository, name, minutes, concurrency, protocol, inputs)
    document: dict[str, Any] = {**dataclasses.asdict(verdict), "holds": verdict.holds}
    print_json(document)
    console.print(
        f"{verdict.share:.2f} of the best of {verdict.combinations} combinations (due {DUE_SHARE}), "
        f"{verdict.gain:.2f} times the start, in {verdict.tune_s / verdict.grid_s:.2f} of the time (due {DUE_TIME})",
        markup=False,
    )
    raise SystemExit(0 if verdict.holds else 1)


if __name__ == "__main__":
    main()
