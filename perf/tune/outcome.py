"""What a search found, why, and what it is worth: as values, as a table, as JSON. Pure but for the printing."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.points import Machine
from perf.tune.search import Change, Duel, Goal, Reading, Trial
from perf.tune.settings import ModelTuning, Tuning
from perf.tune.write_back import Written

FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """One run of `conch perf tune`.

    ``before`` and ``after`` are the settings; ``changes`` what differs, with its worth. ``measured`` are both, in
    turns, once more at the end (None where nothing was found). ``written`` None: nothing was. ``texts`` are the configs
    that changed, as texts before and after, by model.
    """

    name: str
    at: str
    machine: Machine
    goal: Goal
    concurrency: int
    protocol: str
    version: int
    before: Tuning
    after: Tuning
    changes: tuple[Change, ...]
    measured: Duel | None
    trials: tuple[Trial, ...]
    finished: bool
    seconds: float
    precisions: Mapping[int, str]
    notes: tuple[str, ...] = ()
    texts: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    written: Written | None = None

    @property
    def gain(self) -> float | None:
        """How many times better the settings are than those before."""
        return None if self.measured is None else self.goal.gain(self.measured.other, self.measured.best)


def reason(change: Change, goal: Goal, precisions: Mapping[int, str]) -> str:
    """Why a setting is what it is: `2 instances of 1 thread: 1.9 times 1 of 2`."""
    after = _said(change, change.after, change.before, precisions)
    before = _said(change, change.before, change.after, precisions, short=True)
    if change.gain is None:
        return f"{after} in place of {before}: found good together with the rest, and not measured alone"
    if math.isinf(change.gain):
        return f"{after}: keeps the p99 within the limit, {before} does not"
    if goal.objective == "latency":
        return f"{after}: a p99 {change.gain:.2f} times shorter than with {before}"
    return f"{after}: {change.gain:.2f} times {before} (requests/s)"


def _said(change: Change, tuning: Tuning, other: Tuning, precisions: Mapping[int, str], *, short: bool = False) -> str:
    if change.what == "version":
        return f"version {tuning.version} ({precisions.get(tuning.version) or 'unknown precision'})"
    tuned = tuning.of(change.model)
    if change.what == "instances":
        return _instances(tuned, other.of(change.model), short=short)
    if change.what == "batching":
        return str(tuned.batching) if tuned.batching is not None else "no batching"
    if change.what == "max_batch_size":
        return f"batches of up to {tuned.max_batch_size}"
    return f"lengths padded to a multiple of {tuned.pad_multiple}" if tuned.pad_multiple > 1 else "no padded lengths"


def _instances(tuned: ModelTuning, other: ModelTuning, *, short: bool) -> str:
    count = f"{tuned.instances}" if short else f"{tuned.instances} instance{'s' * (tuned.instances > 1)}"
    if not tuned.threads and not other.threads:
        return count
    if not tuned.threads:
        return f"{count} of as many threads as there are cores"
    return f"{count} of {tuned.threads}" + ("" if short else f" thread{'s' * (tuned.threads > 1)}")


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON, with units in the keys."""
    return {
        "format": FORMAT,
        "name": outcome.name,
        "at": outcome.at,
        "machine": dataclasses.asdict(outcome.machine),
        "objective": outcome.goal.objective,
        "p99_limit_ms": outcome.goal.p99_ms,
        "concurrency": outcome.concurrency,
        "protocol": outcome.protocol,
        "took_s": round(outcome.seconds, 1),
        "finished": outcome.finished,
        "gain": _finite(outcome.gain),
        "settings_before": _settings(outcome.before),
        "settings_after": _settings(outcome.after),
        "measured_before": dataclasses.asdict(outcome.measured.best) if outcome.measured else None,
        "measured_after": dataclasses.asdict(outcome.measured.other) if outcome.measured else None,
        "changes": [
            {
                "model": change.model or outcome.name,
                "what": change.what,
                "gain": _finite(change.gain),
                "reason": reason(change, outcome.goal, outcome.precisions),
            }
            for change in outcome.changes
        ],
        "written": dataclasses.asdict(outcome.written) if outcome.written else None,
        "configs": {name: {"before": a, "after": b} for name, (a, b) in outcome.texts.items()},
        "notes": list(outcome.notes),
        "trials": [_trial(trial) for trial in outcome.trials],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "turned": trial.knob,
        "settings": _settings(trial.tuning),
        "look": ("short", "longer", "final")[trial.rung],
        "gain": _finite(trial.gain),
        "kept": trial.kept,
        "took_s": round(trial.seconds, 2),
        "best": dataclasses.asdict(trial.duel.best) if trial.duel else None,
        "other": dataclasses.asdict(trial.duel.other) if trial.duel else None,
        "refused": trial.refused or None,
    }


def _settings(tuning: Tuning) -> dict[str, Any]:
    return {"version": tuning.version, "models": {name: dataclasses.asdict(tuned) for name, tuned in tuning.models}}


def _finite(number: float | None) -> float | None:
    return None if number is None or math.isinf(number) else round(number, 3)


def save(outcome: Outcome, folder: Path) -> Path:
    """Write the outcome into a folder, under its name and time; the path."""
    stamp = re.sub(r"[^0-9T]", "", outcome.at[:19])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.name}-{stamp}.json"
    path.write_text(json.dumps(document(outcome), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def show(outcome: Outcome) -> None:
    """Print what was found, for a person."""
    from conch.terminal import console, print_table

    load = f"{outcome.concurrency} in flight over {outcome.protocol}"
    if outcome.measured is not None:
        rows = [_row("before", outcome.measured.best), _row("after", outcome.measured.other)]
        title = f"{outcome.name}, measured again in turns, {load}"
        print_table(("settings", "requests/s", "p50 ms", "p99 ms", "failures"), rows, title)
    for change in outcome.changes:
        console.print(
            f"{change.model or outcome.name}: {reason(change, outcome.goal, outcome.precisions)}", markup=False
        )
    for note in outcome.notes:
        console.print(note, markup=False)
    if outcome.written is not None:
        took = f", and {outcome.written.server} serves them" if outcome.written.server else ""
        console.print(
            f"written: config.pbtxt of {', '.join(outcome.written.models) or outcome.name}{took}", markup=False
        )


def _row(what: str, reading: Reading) -> list[object]:
    return [
        what,
        round(reading.requests_per_second, 1),
        round(reading.p50_ms, 2),
        round(reading.p99_ms, 2),
        reading.failures,
    ]
