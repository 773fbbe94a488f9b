"""Single steps on files: each is one rename, flushed, and may be repeated after a crash."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from conch.model_config import CONFIG_FILE

# Triton reads version folders with stoll: "3_old" would count as 3, "01" is ignored.
VERSION = re.compile(r"^[1-9][0-9]*$")
# What was moved out of a repository and waits to be removed.
GONE = "gone-"


def versions_in(model: Path) -> list[int]:
    """The version folders of a model's folder, lowest first."""
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if VERSION.fullmatch(p.name) and p.is_dir())


def flush(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(root: Path) -> None:
    """fsync every file and folder: a rename must not be on disk before what it names."""
    for folder, _, files in os.walk(root, topdown=False):
        for path in (Path(folder, file) for file in files):
            if not path.is_symlink():
                flush(path)
        flush(Path(folder))


def write(path: Path, content: bytes, staging: Path) -> None:
    """Replace a file in one step, unless it holds this already.

    Its time of change is later than that of what it replaces, always: file systems keep time in steps of some
    milliseconds, and Triton takes a file of the same time for unchanged.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    beside = staging / "replacing"
    with open(beside, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    earlier_ns = path.stat().st_mtime_ns if path.exists() else 0
    now_ns = max(time.time_ns(), earlier_ns + 1)
    os.utime(beside, ns=(now_ns, now_ns))
    os.replace(beside, path)
    flush(path.parent)


def write_config(model: Path, text: str, staging: Path) -> None:
    """Replace a model's config.pbtxt; "" stands for none."""
    path = model / CONFIG_FILE
    if text:
        write(path, text.encode(), staging)
    elif path.exists():
        path.unlink()
        flush(model)


def read_config_text(model: Path) -> str | None:
    """The text of a model's config.pbtxt, "" when it has none, None when there is no such model."""
    if not model.is_dir():
        return None
    path = model / CONFIG_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def move_in(source: Path, target: Path) -> None:
    """Rename a flushed folder to where it is seen."""
    os.rename(source, target)
    flush(target.parent)


def move_out(path: Path, staging: Path) -> None:
    """Take a folder out of the repository in one step, then remove it; nothing when it is not there."""
    gone = staging / f"{GONE}{path.name}-{time.time_ns()}"
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return
    flush(path.parent)
    shutil.rmtree(gone, ignore_errors=True)
