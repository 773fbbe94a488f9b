"""The moves from one set of settings to others, and the rules that a search begins with. Pure.

On a CPU an instance of a graph is a thread pool: K instances of ceil(cores / K) threads fill the machine, and more
compete. How much an inner loop gains from threads, and a batch from being large, differs from model to model; so the
rules only say where to begin.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf.tune.settings import Batching, ModelTuning, Tuning
from perf.tune.tunable import Tunable

DELAYS_MICROSECONDS = (0, 500, 2000)
PREFERRED = (4, 8)
PAD_MULTIPLES = (1, 8, 16, 32)
LARGEST_BATCH = 256

# How much a kind of move is expected to pay: how many cores work before how they are fed.
_PAYS = {"instances": 1.0, "version": 0.9, "batching": 0.6, "threads": 0.5, "max_batch_size": 0.2, "padding": 0.1}


@dataclass(frozen=True)
class Knob:
    """One thing to turn, and all positions that are worth a try: whole settings, the present one left out."""

    name: str
    model: str
    options: tuple[Tuning, ...]

    @property
    def label(self) -> str:
        """What a person reads: `instances of spam`."""
        return f"{self.name.replace('_', ' ')} of {self.model}" if self.model else self.name


def rule_threads(cores: int, instances: int) -> int:
    """As many threads an instance as fill the machine."""
    return max(1, math.ceil(cores / instances))


def rules(start: Tuning, tunables: Sequence[Tunable], cores: int) -> Knob:
    """Where a search begins: an instance a core without and with batching, and one instance on all cores."""
    options = []
    for instances, batching in ((cores, None), (cores, Batching()), (1, Batching())):
        tuning = start
        for tunable in tunables:
            tuned = start.of(tunable.name)
            if tunable.batches:
                tuned = dataclasses.replace(tuned, batching=batching)
            if tunable.takes_instances and tunable.has_graph:
                tuned = _with_instances(tuned, tunable, max(instances, tunable.fewest_instances), cores)
            tuning = tuning.having(tunable.name, tuned)
        options.append(tuning)
    return Knob("rules", "", _others(options, start))


def knobs(
    tuning: Tuning,
    tunables: Sequence[Tunable],
    cores: int,
    shares: Mapping[str, float],
    variants: Sequence[int] = (),
) -> list[Knob]:
    """Every move from here, the one that should pay most first.

    ``shares`` is the part of the time that each model takes, 0 to 1; ``variants`` are the versions in other precisions.
    """
    found = [Knob("version", "", _others([dataclasses.replace(tuning, version=v) for v in variants], tuning))]
    for tunable in tunables:
        for name, tuned in _moves(tuning.of(tunable.name), tunable, cores).items():
            options = [tuning.having(tunable.name, t) for t in tuned]
            found.append(Knob(name, tunable.name, _others(options, tuning)))
    found = [knob for knob in found if knob.options]
    return sorted(found, key=lambda k: -_PAYS[k.name] * (0.05 + shares.get(k.model, 1.0)))


def _moves(tuned: ModelTuning, tunable: Tunable, cores: int) -> dict[str, list[ModelTuning]]:
    moves: dict[str, list[ModelTuning]] = {}
    if tunable.takes_instances:
        counts = [n for n in _instance_counts(tuned.instances, cores) if n >= tunable.fewest_instances]
        moves["instances"] = [_with_instances(tuned, tunable, count, cores) for count in counts]
    if tunable.thread_parameter:
        moves["threads"] = [dataclasses.replace(tuned, threads=n) for n in _thread_counts(cores)]
    if tunable.batches:
        moves["batching"] = [dataclasses.replace(tuned, batching=b) for b in _batchings(tuned.max_batch_size)]
        if tuned.batching is not None:
            sizes = _batch_sizes(tunable.smallest_batch, tuned.max_batch_size)
            moves["max_batch_size"] = [dataclasses.replace(tuned, max_batch_size=size) for size in sizes]
    if tunable.pad_parameter:
        moves["padding"] = [dataclasses.replace(tuned, pad_multiple=n) for n in PAD_MULTIPLES]
    return moves


def _with_instances(tuned: ModelTuning, tunable: Tunable, instances: int, cores: int) -> ModelTuning:
    threads = rule_threads(cores, instances) if tunable.thread_parameter else tuned.threads
    return dataclasses.replace(tuned, instances=instances, threads=threads)


def _instance_counts(now: int, cores: int) -> list[int]:
    """One, an instance a core, their doubles and halves, and those beside the present count."""
    counts = {1, now - 1, now + 1, now * 2, cores, cores // 2, cores + 1, cores * 2}
    return sorted(n for n in counts if 1 <= n <= 2 * cores)


def _thread_counts(cores: int) -> list[int]:
    return sorted({1, max(1, cores // 2), cores})


def _batchings(max_batch_size: int) -> list[Batching | None]:
    sizes = [size for size in PREFERRED if size <= max_batch_size]
    return [None, *(Batching(delay) for delay in DELAYS_MICROSECONDS), *(Batching(0, (size,)) for size in sizes)]


def _batch_sizes(smallest: int, now: int) -> list[int]:
    """What is needed, and doubles and halves of what is set; never less than what is needed."""
    return sorted({size for size in (smallest, now // 2, now * 2) if max(2, smallest) <= size <= LARGEST_BATCH})


def _others(options: Sequence[Tuning], present: Tuning) -> tuple[Tuning, ...]:
    return tuple(option for option in dict.fromkeys(options) if option != present)
