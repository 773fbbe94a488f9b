"""Rewrite a model file in place, with whatever lies beside it: external data comes and goes with its graph."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def rewriting(path: Path) -> Iterator[Path]:
    """Yields where to write the new file; at the end it, and its companions, replace all that was in the folder."""
    new = path.parent / "new"
    new.mkdir()
    yield new / path.name
    for old in path.parent.iterdir():
        if old != new:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for written in new.iterdir():
        written.rename(path.parent / written.name)
    new.rmdir()


def total_bytes(path: Path) -> int:
    """The size of a model file and its companions, in bytes."""
    return sum(p.stat().st_size for p in path.parent.rglob("*") if p.is_file())
