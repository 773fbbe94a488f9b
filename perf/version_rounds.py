"""Two versions measured in turns, each on a server of its own: in each round both at each load, another first.

So a machine that slows down slows both. The server that is not asked waits, which costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.model_config import signature_of
from conch.releases import DEFAULT_TARGET, release
from conch.repository import Repository
from perf.analyzer import binary
from perf.analyzer.command import WINDOWS
from perf.analyzer.inputs import for_model
from perf.analyzer.measure import measure
from perf.points import Load, Point, RunResult, now, this_machine
from perf.sweep.plan import AROUND_S
from perf.sweep.target import ScratchTarget, Target

_VERSION = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<version>[1-9][0-9]*)$")


@dataclass(frozen=True)
class Version:
    """A version of a model; `spam:3` on the command line."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Rounds:
    """How two versions are measured. ``inputs`` None stands for those that are known for the model."""

    rounds: int
    concurrencies: tuple[int, ...]
    batch_sizes: tuple[int, ...] = (1,)
    protocol: str = "grpc"
    window_ms: int = 2000
    inputs: Path | None = None

    @property
    def turns(self) -> int:
        """How many measurements it takes."""
        return 2 * self.rounds * len(self.concurrencies) * len(self.batch_sizes)

    @property
    def expected_s(self) -> float:
        """How long that takes, about."""
        return self.turns * (WINDOWS * self.window_ms / 1000 + AROUND_S)

    def loads(self, model: str) -> list[Load]:
        """The loads of one version. They are measured just once a round: the rounds tell how steady they are."""
        return [
            Load(
                model,
                protocol=self.protocol,
                concurrency=concurrency,
                batch_size=rows,
                window_ms=self.window_ms,
                max_trials=WINDOWS,
            )
            for rows in self.batch_sizes
            for concurrency in self.concurrencies
        ]


@dataclass(frozen=True)
class Turn:
    """One measurement: ``side`` 0 is A. ``error`` says why there is no point."""

    round: int
    side: int
    load: Load
    point: Point | None
    error: str = ""


def parse_version(text: str) -> Version | None:
    """The version that a word stands for; None when it is something else."""
    found = _VERSION.fullmatch(text)
    return Version(found["name"], int(found["version"])) if found else None


def measure_versions(
    versions: tuple[Version, Version],
    store: Path,
    rounds: Rounds,
    *,
    own_config: bool,
    on_turn: Callable[[Turn], None],
) -> tuple[tuple[RunResult, RunResult], list[Turn]]:
    """Both versions' results, with a point for each load and round, and the turns that failed.

    ``own_config`` serves each by the config in its manifest, otherwise by the live one. Both get the same inputs.
    Raises: ConchError when a version cannot be served, or no round has a point of both.
    """
    binary.find_or_install()
    live = Repository(store)
    first = versions[0]
    signature = signature_of(live.config(first.name))
    inputs = for_model(first.name, signature, file=rounds.inputs, repository=store, version=str(first.version))
    turns: list[Turn] = []
    with (
        ScratchTarget(live, versions[0].name, version=versions[0].version, own_config=own_config) as a,
        ScratchTarget(live, versions[1].name, version=versions[1].version, own_config=own_config) as b,
    ):
        texts = [target.at(None).config_text for target in (a, b)]
        loads = (rounds.loads(versions[0].name), rounds.loads(versions[1].name))
        for turn in take_turns((a, b), loads, rounds.rounds, lambda load, url: measure(load, url, inputs)):
            turns.append(turn)
            on_turn(turn)
    failed = [turn for turn in turns if turn.point is None]
    points = whole_rounds(turns)
    if not points[0]:
        raise ConchError(
            f"{versions[0]} and {versions[1]} could not be measured", got=failed[0].error if failed else None
        )
    at, machine = now(), this_machine(release(DEFAULT_TARGET).server_version)
    notes = (f"{rounds.rounds} rounds in turns, {versions[0]} and {versions[1]}", f"inputs: {inputs.origin}")
    of_a, of_b = (
        RunResult(f"{v.name}-{v.version}", at, machine, v.name, str(v.version), text, tuple(found), notes)
        for v, text, found in zip(versions, texts, points, strict=True)
    )
    return (of_a, of_b), failed


def take_turns(
    targets: tuple[Target, Target],
    loads: tuple[Sequence[Load], Sequence[Load]],
    rounds: int,
    measure: Callable[[Load, str], Point],
) -> Iterator[Turn]:
    """Measure both sides at each load, ``rounds`` times; ``loads`` are each side's. What fails is told, and left out.

    Raises: ConchError when a side cannot be served at all.
    """
    for number in range(rounds):
        for pair in zip(*loads, strict=True):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                load = pair[side]
                url = targets[side].at(None).url(load.protocol)
                try:
                    yield Turn(number, side, load, measure(load, url))
                except (ConchError, OSError) as error:
                    yield Turn(number, side, load, None, str(error))


def whole_rounds(turns: Sequence[Turn]) -> tuple[list[Point], list[Point]]:
    """The points of A and of B, of the rounds in which both have one, in the order of the rounds."""
    sides: tuple[list[Point], list[Point]] = ([], [])
    found = {(turn.round, turn.load.concurrency, turn.load.batch_size, turn.side): turn.point for turn in turns}
    for (number, concurrency, batch_size, side), point in found.items():
        other = found.get((number, concurrency, batch_size, 1 - side))
        if side == 0 and point is not None and other is not None:
            sides[0].append(point)
            sides[1].append(other)
    return sides
