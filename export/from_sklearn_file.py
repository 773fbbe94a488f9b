"""Load a fitted estimator from a joblib or pickle file.

Loading a pickle runs code that is in it, whatever it says it holds. So a file is loaded when it is the user's own (they
are its owner, and not everybody can write to it) or when they vouch for it with ``--trust``; that code runs is said.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from conch.errors import ExportError, UntrustedSource
from conch.terminal import console

# Their estimators have converters in a package of their own, which writes ONNX that `conch export onnx` takes.
OTHER_LIBRARIES = ("xgboost", "lightgbm", "catboost")
OTHER_LIBRARY_FIX = "convert it with onnxmltools (CatBoost: save_model(format='onnx')), then use `conch export onnx`"


@dataclass(frozen=True)
class Loaded:
    """What was in the file, and what is worth telling about the loading."""

    estimator: Any
    notes: tuple[str, ...]


def load_estimator(path: Path, *, trust: bool) -> Loaded:
    """The estimator in a file. Raises: UntrustedSource, ExportError."""
    try:
        with open(path, "rb") as handle:
            # The open file is judged, and the open file is read: a file put in its place in between is neither.
            _check_trust(path, os.fstat(handle.fileno()), trust=trust)
            console.print(f"loading {path.name}: a pickle runs the code that is in it", markup=False)
            loaded, notes = _unpickle(handle, path)
    except OSError as error:
        raise ExportError("the model file cannot be read", where=path, got=error.strerror or error) from error
    if not hasattr(loaded, "predict"):
        raise ExportError(
            f"the file holds a {type(loaded).__name__}, not a fitted model",
            where=path,
            expected="an estimator or a Pipeline with a predict method",
            fix="save the model alone: joblib.dump(model, path)",
        )
    return Loaded(loaded, notes)


def _check_trust(path: Path, status: os.stat_result, *, trust: bool) -> None:
    mine = status.st_uid == os.getuid()
    writable = bool(status.st_mode & stat.S_IWOTH)
    if trust or (mine and not writable):
        return
    raise UntrustedSource(
        "loading a pickle runs whatever code is in it, and this file may not be yours",
        where=path,
        got=f"owned by {_user(status.st_uid)}" + (", and everybody can write to it" if writable else ""),
        expected=f"a file of your own ({_user(os.getuid())}) that not everybody can write to",
        fix="pass --trust if you know who made it and trust them",
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _unpickle(handle: IO[bytes], path: Path) -> tuple[Any, tuple[str, ...]]:
    import joblib

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = joblib.load(handle)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        fix = OTHER_LIBRARY_FIX if name in OTHER_LIBRARIES else f"install what provides {name} in this environment"
        raise ExportError(
            f"the file needs the Python module {error.name}, which is not installed here", where=path, fix=fix
        ) from error
    except (AttributeError, ImportError) as error:
        raise ExportError(
            "the file refers to code that is not here",
            where=path,
            got=error,
            fix="models keep no code of their own: define functions and classes in a module that can be imported here, "
            "not in a notebook or script, and save the model again",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # unpickling bytes that are no pickle raises nearly anything
        raise ExportError(
            "the file is no joblib or pickle file that this Python can read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            fix="save it with joblib.dump(model, path), and with the same major version of Python",
        ) from error
    return loaded, _version_notes([w.message for w in caught])


def _version_notes(messages: list[Warning | str]) -> tuple[str, ...]:
    """One note a pair of versions, not one a step of the pipeline."""
    found = set()
    for message in messages:
        if type(message).__name__ == "InconsistentVersionWarning":
            versions = re.findall(r"version (\d[\w.]*\w)", str(message))
            found.add(tuple(versions[:2]))
    return tuple(
        f"the model was saved with scikit-learn {old} and loaded with {new}; parity is with what {new} answers"
        for old, new in sorted(v for v in found if len(v) == 2)
    )
