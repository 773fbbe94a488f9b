"""What a server on this machine holds at a moment, process by process, and how a row of such figures grows.

Memory is private and anonymous (PssAnon): what a leak grows. Files of models come and go with the page cache, and
shared memory is counted apart, by its regions.

Source: https://www.kernel.org/doc/html/latest/filesystems/proc.html (smaps_rollup)
"""

from __future__ import annotations

import itertools
import math
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ANONYMOUS = re.compile(r"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)
MIB = 2**20
# Neighbouring samples are not independent: means of this many blocks are.
BLOCKS = 12


@dataclass(frozen=True)
class Usage:
    """A moment: ``at_s`` by any clock; memory in MiB of tritonserver itself and of all the processes that it started.

    ``descriptors`` are tritonserver's open files and sockets; ``regions`` the Python backend's in /dev/shm,
    ``regions_mib`` what they hold; ``cpu_s`` what all processes that run now have used.
    """

    at_s: float
    server_mib: float
    models_mib: float
    processes: int
    descriptors: int
    regions: int
    regions_mib: float
    cpu_s: float


@dataclass(frozen=True)
class Growth:
    """A least squares slope and its standard error, per unit of what was passed as x."""

    slope: float
    error: float

    @property
    def shows(self) -> bool:
        """Whether it grows by more than chance explains (two standard errors)."""
        return self.slope > 2 * self.error

    def __str__(self) -> str:
        return f"{self.slope:+.2f} ± {2 * self.error:.2f}"


def usage(pid: int, regions: Sequence[Path], at_s: float) -> Usage:
    """What a tritonserver holds now. Raises: OSError when it does not run."""
    children = descendants(pid)
    return Usage(
        at_s=at_s,
        server_mib=_anonymous_mib(pid),
        models_mib=sum(_anonymous_mib(child, missing=True) for child in children),
        processes=len(children),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        regions=len(regions),
        regions_mib=sum(_blocks(path) for path in regions) * 512 / MIB,
        cpu_s=sum(_cpu_s(process) for process in (pid, *children)),
    )


def descendants(pid: int) -> list[int]:
    """All processes that one started, directly or through others; those that have ended and wait are left out."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = _stat(stat.parent.name)
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    due = [pid]
    while due:
        below = children.get(due.pop(), [])
        found += below
        due += below
    return found


def growth(xs: Sequence[float], ys: Sequence[float], blocks: int = BLOCKS) -> Growth:
    """The slope of y over x, from the means of ``blocks`` parts of equal length; x ascends. NaN for under 3 points."""
    count = min(blocks, len(xs))
    if count < 3:
        return Growth(math.nan, math.nan)
    cuts = [round(i * len(xs) / count) for i in range(count + 1)]
    x = [statistics.fmean(xs[a:b]) for a, b in itertools.pairwise(cuts)]
    y = [statistics.fmean(ys[a:b]) for a, b in itertools.pairwise(cuts)]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return Growth(slope, math.sqrt(residual / (count - 2) / spread))


def _stat(process: object) -> list[str]:
    """The fields of /proc/N/stat from the state on; none when it has ended. The name before may hold anything."""
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _anonymous_mib(pid: int, *, missing: bool = False) -> float:
    try:
        found = _ANONYMOUS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        if missing:
            return 0.0
        raise
    return int(found.group(1)) / 1024 if found else 0.0


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks
    except OSError:
        return 0
