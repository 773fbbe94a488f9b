"""Copy the code of a Python model into a version folder, with what stands beside it there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from conch.errors import ExportError

PYTHON_BACKENDS = Path(__file__).resolve().parent.parent / "python_backends"

# Of a python_backends/ folder, what serving does not need.
_LEFT_OUT = ("tests", "__pycache__", "requirements*.txt", "README*", "*.pyc", ".*")


def copy_code(backend: str, folder: Path, *, without: Sequence[str] = ()) -> None:
    """Copy the files of python_backends/BACKEND, links as what they point to. Raises: ExportError."""
    code = PYTHON_BACKENDS / backend
    if not (code / "model.py").is_file():
        known = sorted(p.parent.name for p in PYTHON_BACKENDS.glob("*/model.py"))
        raise ExportError(f"there is no Python backend {backend}", where=PYTHON_BACKENDS, expected=", ".join(known))
    shutil.copytree(code, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT, *without), dirs_exist_ok=True)


def required_packages(backends: Sequence[str], stricter: Sequence[str]) -> tuple[str, ...]:
    """What the backends' requirements.txt ask for, each line replaced by a stricter one of the same name."""
    lines = [
        line
        for backend in backends
        for line in (PYTHON_BACKENDS / backend / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ]
    by_name = {re.split(r"[^\w.-]", line)[0]: line for line in (*lines, *stricter) if line}
    return tuple(by_name[name] for name in sorted(by_name))


def add_files(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write or copy files into a folder, by name. Raises: ExportError for a name that is taken."""
    for name, content in files.items():
        if (folder / name).exists():
            raise ExportError(f"two parts of the version bring a file {name}", where=folder.parent.name)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
