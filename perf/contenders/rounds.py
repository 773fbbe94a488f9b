"""The rounds of the comparison: who is started when, what is tried first, what is checked, and in which order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conch.errors import ConchError
from conch.terminal import console
from perf.contenders.entries import Entry, HasProcesses, Target, Variant
from perf.contenders.environments import Unavailable
from perf.contenders.field import KEYS
from perf.contenders.processes import cpu_seconds
from perf.contenders.workloads import Workload
from perf.load_loop import LoadResult
from perf.standings import Standing, compare

# int8 by its own quantizer beside fp32 of the framework: the same direction is all that can be asked.
LEAST_COSINE = 0.95
MOST_DIFFERENCE = 1e-4
# A server that takes more than this while it waits does not wait while others are measured.
MOST_IDLE_CORES = 0.03


@dataclass(frozen=True)
class Plan:
    """How long and how often: seconds a measurement and before it, rounds, and requests in flight."""

    levels: tuple[int, ...]
    duration_s: float
    warmup_s: float
    rounds: int
    trial_s: float


@dataclass
class Outcome:
    """What a workload gave. ``runs``: requests in flight -> server -> a round each."""

    workload: Workload
    runs: dict[int, dict[str, list[LoadResult]]]
    entries: dict[str, Entry] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    trials: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    idle_cores: dict[str, float] = field(default_factory=dict)

    def add(self, entry: Entry, target: Target, result: LoadResult) -> None:
        """Count a measurement."""
        self.entries[target.name] = entry
        self.versions[entry.name] = entry.version()
        self.runs[result.connections].setdefault(target.name, []).append(result)

    def standings(self) -> list[Standing]:
        """Everyone at each number of requests in flight, who took part in every round, in the order of the field."""
        order = [name for entry in KEYS for name, own in self.entries.items() if own.key == entry]
        found = []
        for own in self.runs.values():
            rounds = max((len(runs) for runs in own.values()), default=0)
            whole = {name: own[name] for name in order if len(own.get(name, [])) == rounds}
            found += compare(whole, {name: self.entries[name].role for name in whole})
        return found


def in_turn(targets: Sequence[Any], turn: int) -> list[Any]:
    """The order in a round: another goes first each time, so that none always meets the warmer machine."""
    first = turn % len(targets) if targets else 0
    return [*targets[first:], *targets[:first]]


def check_same_answers(expected: Target, target: Target, *, exact: bool, questions: int = 3) -> None:
    """Raise ConchError unless both answer alike: only then is the comparison fair."""
    for index in range(questions):
        due, got = expected.ask(index), target.ask(index)
        for name, value in got.items():
            mine, its = np.asarray(due[name]).ravel(), np.asarray(value).ravel()
            if mine.shape == its.shape:
                if mine.dtype.kind in "US":
                    same, difference = list(mine) == list(its), f"{list(its)} for {list(mine)}"
                elif exact:
                    largest = float(np.abs(mine - its).max())
                    same, difference = largest <= MOST_DIFFERENCE, f"a difference of {largest:.2g}"
                else:
                    cosine = float(mine @ its / np.linalg.norm(mine) / np.linalg.norm(its))
                    same, difference = cosine >= LEAST_COSINE, f"a cosine of {cosine:.3f}"
                if same:
                    continue
            else:
                difference = f"{its.shape} for {mine.shape}"
            raise ConchError(
                f"{target.name} answers otherwise than {expected.name}",
                where=f"{name} of payload {index}",
                got=difference,
                expected="equal text, numbers within "
                f"{MOST_DIFFERENCE:g}; for fp32 beside int8 a cosine of {LEAST_COSINE}",
            )


def best_variant(entry: Entry, plan: Plan, outcome: Outcome) -> Variant:
    """The variant with the highest geometric mean of requests/s over the numbers in flight. Raises: Unavailable."""
    if len(entry.variants) == 1:
        return entry.variants[0]
    scores: dict[str, float] = {}
    failure: Unavailable | None = None
    for variant in entry.variants:
        try:
            with variant.start() as (target, *_):
                results = [target.load(level, plan.trial_s, plan.trial_s / 2) for level in plan.levels]
        except Unavailable as error:
            failure = error
            if "environment" in error.what:
                break
            console.print(f"  {entry.name}, {variant.label}: {error.what}", markup=False)
            continue
        rates = [0.01 if result.failures else max(result.requests_per_second, 0.01) for result in results]
        scores[variant.label] = round(math.exp(sum(map(math.log, rates)) / len(rates)), 1)
        console.print(f"  {entry.name}, {variant.label}: {scores[variant.label]:.0f} req/s over all numbers in flight")
    if not scores:
        raise failure or Unavailable("no variant could be tried")
    outcome.trials[entry.name] = scores
    return next(v for v in entry.variants if v.label == max(scores, key=lambda label: scores[label]))


def measure(outcome: Outcome, entry: Entry, target: Target, level: int, plan: Plan, turn: int) -> None:
    """One server at one number of requests in flight, in one round."""
    result = target.load(level, plan.duration_s, plan.warmup_s)
    outcome.add(entry, target, result)
    failed = f"   {result.failures} FAILED" if result.failures else ""
    console.print(
        f"round {turn + 1}/{plan.rounds}  {outcome.workload.name:<8}{level:>4} in flight  {target.name:<34}"
        f"{result.requests_per_second:8.0f} req/s   p99 {result.p99_ms:7.1f} ms{failed}",
        markup=False,
    )


def run_workload(workload: Workload, entries: Sequence[Entry], plan: Plan) -> Outcome:
    """All rounds of a workload. What cannot be started is left out, with the reason; ours must start.

    Raises: ConchError when answers differ, or ours does not start.
    """
    outcome = Outcome(workload, {level: {} for level in plan.levels})
    with ExitStack() as stack:
        # Ours first: its answers are what the others' are held to.
        ours = next(entry for entry in entries if entry.role == "ours")
        residents = [(ours, target) for target in stack.enter_context(ours.variants[0].start())]
        reference = residents[0][1]
        for _, target in residents:
            check_same_answers(reference, target, exact=True)
        guests: list[tuple[Entry, Variant]] = []
        for entry in entries:
            if entry is ours:
                continue
            try:
                variant = best_variant(entry, plan, outcome)
                if len(entry.variants) > 1:
                    outcome.chosen[entry.name] = variant.label
                with ExitStack() as own:
                    targets = own.enter_context(variant.start())
                    for target in targets:
                        check_same_answers(reference, target, exact=entry.exact)
                    outcome.idle_cores[entry.name] = idle_cores(targets)
                    if entry.resident and outcome.idle_cores[entry.name] <= MOST_IDLE_CORES:
                        residents += [(entry, named(target, outcome.chosen.get(entry.name))) for target in targets]
                        stack.enter_context(own.pop_all())
                    else:
                        guests.append((entry, variant))
            except Unavailable as error:
                outcome.skipped[entry.name] = error.what
                console.print(f"left out: {entry.name}: {error.what}", markup=False)
        outcome.idle_cores["conch"] = idle_cores([target for _, target in residents][:1])
        for turn in range(plan.rounds):
            for level in plan.levels:
                for entry, target in in_turn(residents, turn):
                    measure(outcome, entry, target, level, plan, turn)
            for entry, variant in guests:
                try:
                    with variant.start() as targets:
                        for target in targets:
                            for level in plan.levels:
                                label = outcome.chosen.get(entry.name)
                                measure(outcome, entry, named(target, label), level, plan, turn)
                except Unavailable as error:
                    outcome.skipped[entry.name] = f"in round {turn + 1}: {error.what}"
    return outcome


def named(target: Target, label: str | None) -> Target:
    """A target with its variant in its name."""
    return target if label is None else replace(target, name=f"{target.name} ({label})")


def idle_cores(targets: Sequence[HasProcesses], watch_s: float = 1.0) -> float:
    """How many cores these take while nobody asks them."""
    pids = [pid for target in targets for pid in target.pids]
    before = cpu_seconds(pids)
    time.sleep(watch_s)
    return round((cpu_seconds(pids) - before) / watch_s, 3)
