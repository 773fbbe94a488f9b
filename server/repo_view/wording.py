"""How versions, sizes and times read in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

NOTHING = "-"


def size(count: int) -> str:
    """Bytes as a person reads them: 812 B, 21.1 kB, 22.9 MB."""
    if count < 1000:
        return f"{count} B"
    figure = float(count)
    for unit in ("kB", "MB", "GB"):
        figure /= 1000
        if figure < 999.5:
            return f"{figure:.1f} {unit}"
    return f"{figure / 1000:.1f} TB"


def day(moment: str) -> str:
    """The day of an ISO 8601 moment: 2026-11-20."""
    return moment[:10] or NOTHING


def minute(moment: str) -> str:
    """An ISO 8601 moment to the minute: 2026-11-20 09:37."""
    return moment[:16].replace("T", " ") or NOTHING


def ranges(versions: Iterable[int]) -> str:
    """Versions with runs drawn together: 1-3, 7."""
    runs: list[list[int]] = []
    for version in sorted(versions):
        if runs and runs[-1][1] == version - 1:
            runs[-1][1] = version
        else:
            runs.append([version, version])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or NOTHING


def share(weight: float) -> str:
    """A weight as a share of the traffic: 10%."""
    return f"{100 * weight:g}%"


def number(value: float) -> str:
    """A figure with three digits: 0, 1.79e-07, 0.994."""
    return f"{value:.3g}"
