"""The memory of a server on this machine: its process and all that it started, models' processes among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What was held at a time: ``at_s`` by any clock, ``megabytes`` of 10^6 bytes."""

    at_s: float
    megabytes: float


def used_megabytes(pid: int) -> float | None:
    """What a process and its descendants hold, what they share counted once; None when it cannot be read.

    Source: https://www.kernel.org/doc/html/latest/filesystems/proc.html (smaps_rollup, Pss)
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; the parent is the second field behind it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    kilobytes, due = 0, [pid]
    while due:
        process = due.pop()
        due += children.get(process, [])
        try:
            found = _PSS.search(Path(f"/proc/{process}/smaps_rollup").read_text())
        except OSError:
            if process == pid:
                return None
            continue
        kilobytes += int(found.group(1)) if found else 0
    return kilobytes * 1024 / 1e6


def slope_per_minute(samples: Sequence[Sample]) -> float | None:
    """Megabytes a minute, by least squares; None with fewer than three samples, or no time between them."""
    if len(samples) < 3:
        return None
    mean_s = sum(s.at_s for s in samples) / len(samples)
    mean = sum(s.megabytes for s in samples) / len(samples)
    spread = sum((s.at_s - mean_s) ** 2 for s in samples)
    if not spread:
        return None
    return 60 * sum((s.at_s - mean_s) * (s.megabytes - mean) for s in samples) / spread
