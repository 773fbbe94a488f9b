"""Environments of their own for servers whose packages do not go with ours: made once, with venv and pip."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

from conch.errors import ConchError
from conch.terminal import console

# The same engine, tokenizer and decoder as ours, so that what differs is the server.
SHARED = ("onnxruntime", "tokenizers", "pillow")
TIMEOUT_S = 900


class Unavailable(ConchError):
    """A contender cannot take part here; the message says why."""


def requirements(packages: tuple[str, ...]) -> list[str]:
    """What an environment holds: a server's packages, and the rest as it is installed here."""
    shared = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
    return [*packages, *shared, "numpy", "uvloop", "httptools"]


def environment(name: str, packages: tuple[str, ...], folder: Path) -> Path:
    """The Python of the environment ``folder/name``, made when it is missing or holds something else.

    Raises: Unavailable, with the last line that pip or venv wrote.
    """
    home = (folder / name).absolute()
    python, record = home / "bin" / "python", home / "conch-made.json"
    wanted = requirements(packages)
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) == wanted:
        return python
    console.print(f"making an environment for {name} in {home}: {', '.join(packages)}")
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    try:
        for command in ([sys.executable, "-m", "venv", str(home)], install):
            ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
            if ended.returncode:
                raise Unavailable(f"its environment cannot be made: {reason(ended.stderr or ended.stdout)}", where=home)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"its environment cannot be made: {error}", where=home) from error
    record.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def reason(printed: str) -> str:
    """The line of pip's or venv's output that says what went wrong."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no reason given"])[-1]


@functools.cache
def version(python: Path, package: str) -> str:
    """The version of a package that is installed for another Python."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    ended = subprocess.run([str(python), "-c", code, package], capture_output=True, text=True)
    return ended.stdout.strip() or "unknown"
