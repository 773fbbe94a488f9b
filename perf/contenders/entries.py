"""What the comparison knows of a contender: how to start it, what may be asked of it, and how to load it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from conch.tensor_spec import Array
from perf.load_loop import LoadResult

Role = Literal["ours", "other", "framework", "limit"]


class HasProcesses(Protocol):
    """What runs in processes of its own: ``pids`` are those that began it."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids."""
        ...


@dataclass(frozen=True)
class Target:
    """One running server, seen through one protocol.

    ``ask(n)`` is the answer to the n-th payload, by name. ``load(connections, duration_s, warmup_s)`` measures.
    ``pids`` are the processes that began it; theirs are its own.
    """

    name: str
    ask: Callable[[int], Mapping[str, Array]]
    load: Callable[[int, float, float], LoadResult]
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One way to run a contender; ``start`` yields its targets, and stops it."""

    label: str
    start: Callable[[], AbstractContextManager[list[Target]]]


@dataclass(frozen=True)
class Entry:
    """A contender: of several variants, the fastest takes part.

    ``key`` is its name on the command line. One that is not ``resident`` takes processor time or much memory while it
    waits, so it runs only in its turn. ``exact`` says whether it computes the very numbers that ours do.
    """

    key: str
    name: str
    role: Role
    variants: tuple[Variant, ...]
    resident: bool = True
    exact: bool = True
    version: Callable[[], str] = str
