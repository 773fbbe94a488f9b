"""What a sweep measures, in which order, and how long the rest of it will take. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conch.errors import ConchError
from perf.points import Load

# perf_analyzer wants three windows that agree, and starts and ends in about two seconds: what a point takes at least.
WINDOWS = 3
AROUND_S = 2.0


@dataclass(frozen=True)
class Cell:
    """One combination. ``instances`` None is as the config has it."""

    instances: int | None
    batch_size: int
    concurrency: int

    @property
    def label(self) -> str:
        """E.g. `instances 2, batch 4, 8 in flight`."""
        instances = "" if self.instances is None else f"instances {self.instances}, "
        return f"{instances}batch {self.batch_size}, {self.concurrency} in flight"


@dataclass(frozen=True)
class Plan:
    """All combinations of a model.

    ``template`` is the load that all share; its concurrency and batch size are the cells'. ``scaled`` is the model
    whose instances are changed: the model itself, or a member of the ensemble; "" when none are. ``inputs`` are the
    options by which the requests' contents were chosen.
    """

    template: Load
    concurrencies: tuple[int, ...]
    batch_sizes: tuple[int, ...] = (1,)
    instances: tuple[int | None, ...] = (None,)
    scaled: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse axes that are empty or name a value twice. Raises: ConchError."""
        axes: tuple[tuple[str, Sequence[int | None]], ...] = (
            ("concurrency", self.concurrencies),
            ("batch size", self.batch_sizes),
            ("instances", self.instances),
        )
        for name, values in axes:
            if not values or len(set(values)) < len(values) or any(v is not None and v < 1 for v in values):
                raise ConchError(
                    f"A sweep's values of {name} are wrong",
                    got=", ".join(map(str, values)) or "none",
                    expected="at least one, each above zero and named once",
                )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they are measured: a change of instances loads the model anew, so it is rarest."""
        return tuple(Cell(i, b, c) for i in self.instances for b in self.batch_sizes for c in self.concurrencies)

    def load(self, cell: Cell) -> Load:
        """What perf_analyzer is to send."""
        return dataclasses.replace(self.template, concurrency=cell.concurrency, batch_size=cell.batch_size)


def check_batches(plan: Plan, max_batch_size: int) -> None:
    """Raises: ConchError when a batch is larger than the model takes: known before anything is started."""
    largest = max(plan.batch_sizes)
    if largest > max(1, max_batch_size):
        takes = f"at most {max_batch_size} (max_batch_size)" if max_batch_size else "no batches (max_batch_size 0)"
        raise ConchError(
            f"{plan.template.model} takes {takes} rows a request",
            got=f"--batch-size {largest}",
            fix="leave the larger sizes out, or raise max_batch_size",
        )


def remaining_s(plan: Plan, left: int, took_s: Sequence[float]) -> float:
    """How long so many combinations will take: each as long as the median of those measured in this run."""
    each_s = statistics.median(took_s) if took_s else plan.template.window_ms / 1000 * WINDOWS + AROUND_S
    return left * each_s


def in_words(duration_s: float) -> str:
    """A duration as a person says it: `40 s`, `12 min`, `2 h 5 min`."""
    if duration_s < 90:
        return f"{max(0, round(duration_s))} s"
    minutes = round(duration_s / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
