"""The file that keys lie in, YAML or JSON: replaced as a whole, by one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from conch.errors import ConfigError
from gateway.security import keys
from gateway.security.keys import Key

# Parsing in C is ten times as fast, and libyaml is not everywhere.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> tuple[Key, ...]:
    """The keys in a file. Raises: ConfigError."""
    try:
        document = yaml.load(path.read_bytes(), _Loader)
    except FileNotFoundError:
        raise ConfigError(
            "there is no keys file", where=path, fix=f"create a first key: conch gateway key create NAME --keys {path}"
        ) from None
    except OSError as error:
        raise ConfigError("the keys file cannot be read", where=path, got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("the keys file does not parse", where=path, got=" ".join(str(error).split())) from error
    try:
        return keys.from_document(document)
    except ConfigError as error:
        error.where = error.where or path
        raise


def update(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Read, change and replace the file, which need not be there yet. Raises: ConfigError; the file is then as it was.

    The lock is a file of its own beside it: a lock on the file itself would go with the file that is replaced.
    """
    try:
        with open(path.with_name(f".{path.name}.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            after = change(read(path) if path.exists() else ())
            _replace(path, _text(path, after))
    except OSError as error:
        raise ConfigError(
            "the keys file could not be written", where=error.filename or path, got=error.strerror
        ) from error


def _text(path: Path, found: tuple[Key, ...]) -> str:
    document = keys.to_document(found)
    if path.suffix == ".json":
        return json.dumps(document, indent=2) + "\n"
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def _replace(path: Path, text: str) -> None:
    """One rename. Who runs the gateway may read it, nobody else: mode 0600, or what the file has now."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, mode)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
