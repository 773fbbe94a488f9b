"""One run of `conch perf tune`: read, search on a scratch server, measure again, write back. Read it top to bottom."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.model_config import signature_of
from conch.releases import DEFAULT_TARGET, release
from conch.repository import Repository
from perf.analyzer.inputs import Inputs, for_model
from perf.points import Load, now, this_machine
from perf.tune.arena import Measure, ScratchArena, scratch_arena
from perf.tune.knobs import Knob, knobs, rules
from perf.tune.outcome import Outcome
from perf.tune.search import FINAL, MARGIN, Change, Duel, Found, Goal, Reading, Search, Trial, changes_between, prune
from perf.tune.settings import Tuning
from perf.tune.tunable import Subject, look
from perf.tune.write_back import Written, new_texts, write_back

# Of the time, what the search may take, and what may have passed when changes are no longer measured alone.
SEARCH_SHARE, PRUNE_SHARE = 0.65, 0.85
# Three windows are enough, however they differ: settings meet in turns, not in long looks.
ANY_PERCENT = 1000.0
IN_FLIGHT = {"throughput": 32, "latency": 4}


@dataclass(frozen=True)
class Options:
    """What was asked for. ``concurrency`` None begins with 32 in flight (latency: 4) and goes down to keep the p99."""

    goal: Goal
    minutes: float = 5.0
    concurrency: int | None = None
    protocol: str = "grpc"
    apply: bool = True
    server: str | None = None
    inputs: Path | None = None
    keep_version: bool = False


def tune(
    root: Path,
    name: str,
    options: Options,
    told: Callable[[Trial], None] = lambda _: None,
) -> Outcome:
    """Find better settings, and write them back. Raises: ConchError; the repository is then as it was."""
    begun = time.monotonic()
    repository = Repository(root)
    subject = look(repository, name)
    if options.keep_version:
        subject = dataclasses.replace(subject, variants={})
    signature = signature_of(subject.configs[name])
    inputs = for_model(name, signature, file=options.inputs, repository=root, version=str(subject.version))
    concurrency = options.concurrency or IN_FLIGHT[options.goal.objective]

    measuring = measure_at(options.protocol, inputs)
    with scratch_arena(repository, subject, concurrency, options.minutes * 60, measuring) as arena:
        arena.may_ease = options.concurrency is None and options.goal.p99_ms is not None
        found, best, changes = find(arena, subject, subject.start, options.goal, begun + options.minutes * 60, told)
        measured = _again(arena, subject.start, best)
    notes = [*subject.notes]
    best, changes = _only_if_better(subject, best, changes, measured, options.goal, notes)
    as_it_is = _last_of(subject.start, found)
    if as_it_is is not None:
        notes.append(
            f"as they are: {as_it_is.requests_per_second:.0f} requests/s, p99 {as_it_is.p99_ms:.1f} ms "
            f"with {arena.concurrency} in flight"
        )
    if not found.finished:
        notes.append("the time was up before all moves were tried: --minutes gives it more")
    last = measured.other if measured is not None else as_it_is
    if options.goal.p99_ms is not None and last is not None and not options.goal.allows(last):
        notes.append(f"no settings kept the p99 within {options.goal.p99_ms:g} ms at {arena.concurrency} in flight")
    return Outcome(
        name=name,
        at=now(),
        machine=this_machine(release(DEFAULT_TARGET).server_version),
        goal=options.goal,
        concurrency=arena.concurrency,
        protocol=options.protocol,
        version=best.version,
        before=subject.start,
        after=best,
        changes=changes,
        measured=measured if best != subject.start else None,
        trials=found.trials,
        finished=found.finished,
        seconds=time.monotonic() - begun,
        precisions=subject.precisions,
        notes=tuple(notes),
        texts=_texts(repository, subject, best),
        written=_write(repository, subject, best, options),
    )


def find(
    arena: ScratchArena,
    subject: Subject,
    start: Tuning,
    goal: Goal,
    deadline_s: float,
    told: Callable[[Trial], None] = lambda _: None,
) -> tuple[Found, Tuning, tuple[Change, ...]]:
    """Search from ``start``, then take back what does not pay: what was found, the best settings, what each is worth.

    ``deadline_s`` is on time.monotonic(): by then the last comparison, of before and after, should be done too.
    """
    cores = len(os.sched_getaffinity(0))
    left_s = deadline_s - time.monotonic()

    def moves(tuning: Tuning) -> list[Knob]:
        return knobs(tuning, subject.tunables, cores, arena.shares(tuning), tuple(subject.variants))

    def has_time(more_s: float) -> bool:
        return time.monotonic() + more_s <= deadline_s - (1 - PRUNE_SHARE) * left_s

    search = Search(arena, goal, moves, deadline_s - (1 - SEARCH_SHARE) * left_s, told=told)
    found = search.run(start, rules(start, subject.tunables, cores))
    best, changes = prune(start, found.best, changes_between(start, found.best), arena, goal, has_time)
    return found, best, changes


def _again(arena: ScratchArena, start: Tuning, best: Tuning) -> Duel | None:
    """Before and after, side by side, once more: what the search itself measured has been chosen for being high."""
    if best == start:
        return None
    result = arena.duel(start, best, FINAL)
    if isinstance(result, str):
        raise ConchError("The settings that were found are no longer served", got=result)
    return result


def _only_if_better(
    subject: Subject,
    best: Tuning,
    changes: tuple[Change, ...],
    measured: Duel | None,
    goal: Goal,
    notes: list[str],
) -> tuple[Tuning, tuple[Change, ...]]:
    """The settings that were found, if they are better when measured again; else those that are there."""
    if measured is None:
        notes.append("nothing that was tried is better than the settings that are there: they stay")
        return subject.start, ()
    gain = goal.gain(measured.other, measured.best)
    if gain < 1 + MARGIN:
        notes.append(
            f"measured again, the settings that were found are {gain:.2f} times those before: nothing is changed"
        )
        return subject.start, ()
    return best, changes


def _last_of(start: Tuning, found: Found) -> Reading | None:
    """What the settings at the start did, when they are the best: they were measured against every other."""
    duels = [trial.duel for trial in found.trials if trial.duel is not None]
    return duels[-1].best if duels and found.best == start else None


def _texts(repository: Repository, subject: Subject, best: Tuning) -> dict[str, tuple[str, str]]:
    if best.version != subject.version:
        return {}
    return {name: (before, after) for name, (before, after, _) in new_texts(repository, subject, best).items()}


def _write(repository: Repository, subject: Subject, best: Tuning, options: Options) -> Written | None:
    if not options.apply or best == subject.start:
        return None
    return write_back(repository, subject, best, server=options.server)


def measure_at(protocol: str, inputs: Inputs) -> Callable[[str, str], Measure]:
    """How a served model is measured: three windows of perf_analyzer."""
    from perf.analyzer.measure import measure

    def at(http_url: str, grpc_url: str) -> Measure:
        url = grpc_url if protocol == "grpc" else http_url

        def one(model: str, in_flight: int, window_ms: int) -> Reading:
            load = Load(
                model,
                protocol=protocol,
                concurrency=in_flight,
                window_ms=window_ms,
                stability_percent=ANY_PERCENT,
                max_trials=3,
            )
            point = measure(load, url, inputs)
            latency = point.latency_ms
            return Reading(point.requests_per_second, latency["p50"], latency["p99"], point.failures)

        return one

    return at
