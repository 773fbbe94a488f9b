"""A run's settings: perf/NAME.yaml or a file of the user's, checked key by key. Knows nothing of servers.

Keys, all optional but one of the first two:

    concurrency               requests in flight: a number, or a list in the order in which they are measured
    request_rate_per_second   requests a second, whether or not those before were answered: a number or a list
    arrivals                  constant (default) or poisson, for request_rate_per_second
    about                     one line for people
    protocol                  grpc (default) or http
    batch_size                rows a request, 1
    shared_memory             none (default) or system
    streaming                 false; true needs grpc
    window_ms                 one measurement window, 5000
    stability_percent         how far three windows may differ, 10
    max_trials                windows at most, until three in a row agree, 10
    percentile                whose latency has to be stable, 99
    repeat                    how often the whole list is measured, 1
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ConchError, nearest
from perf.points import Load

NAMED = Path(__file__).parents[1]
NAMES = ("smoke", "latency", "throughput", "soak", "spike")
DEFAULT = "smoke"
_AXES = ("concurrency", "request_rate_per_second")
# A key -> the type that its value has; a float may be written as a whole number.
_TYPES: dict[str, type] = {
    "about": str,
    "arrivals": str,
    "protocol": str,
    "batch_size": int,
    "shared_memory": str,
    "streaming": bool,
    "window_ms": int,
    "stability_percent": float,
    "max_trials": int,
    "percentile": int,
    "repeat": int,
}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class RunSettings:
    """What to measure: one load for each of ``concurrency`` or ``request_rate_per_second``, in order."""

    name: str
    about: str = ""
    concurrency: tuple[int, ...] = ()
    request_rate_per_second: tuple[float, ...] = ()
    arrivals: str = "constant"
    protocol: str = "grpc"
    batch_size: int = 1
    shared_memory: str = "none"
    streaming: bool = False
    window_ms: int = 5000
    stability_percent: float = 10.0
    max_trials: int = 10
    percentile: int = 99
    repeat: int = 1

    def loads(self, model: str, version: str = "") -> tuple[Load, ...]:
        """The loads in the order in which they are measured. Raises: ConchError when one contradicts itself."""
        shared = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Load)
            if field.name not in ("model", "version", *_AXES)
        }
        axis, values = (
            ("concurrency", self.concurrency)
            if self.concurrency
            else ("request_rate_per_second", self.request_rate_per_second)
        )
        if not values or (self.concurrency and self.request_rate_per_second):
            raise ConchError(
                "A run needs either requests in flight or a request rate",
                where=self.name,
                got="both" if values else "neither",
                expected=" or ".join(_AXES),
            )
        if self.repeat < 1:
            raise ConchError("repeat must be above zero", where=self.name, got=self.repeat)
        once = tuple(Load(model, version, **{**shared, axis: value}) for value in values)
        return once * self.repeat


def read(name_or_path: str) -> RunSettings:
    """One of the named configurations, or a YAML file. Raises: ConchError, naming file, key and what is due."""
    path = NAMED / f"{name_or_path}.yaml" if name_or_path in NAMES else Path(name_or_path)
    if not path.is_file():
        close = nearest(name_or_path, NAMES)
        raise ConchError(
            "There is no such configuration",
            got=name_or_path,
            expected=f"{', '.join(NAMES)}, or a YAML file",
            fix=f"did you mean {close}?" if close else "see perf/smoke.yaml for the keys",
        )
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConchError("The configuration is no YAML", where=path, got=error) from error
    if not isinstance(document, dict):
        raise ConchError("The configuration holds no keys", where=path, got=f"{document!r:.80}")
    return from_mapping(document, path.stem, path)


def from_mapping(document: Mapping[str, Any], name: str, where: object = None) -> RunSettings:
    """Check and type what a file says. Raises: ConchError."""
    fields: dict[str, Any] = {"name": name}
    for key, value in document.items():
        if key in _AXES:
            fields[key] = _numbers(key, value, where)
        elif key in _TYPES:
            fields[key] = _typed(key, value, _TYPES[key], where)
        else:
            known = (*_AXES, *_TYPES)
            close = nearest(str(key), known)
            raise ConchError(
                "The configuration has a key that is not known",
                where=where,
                got=key,
                expected=", ".join(known),
                fix=f"did you mean {close}?" if close else None,
            )
    settings = RunSettings(**fields)
    try:
        settings.loads("any")
    except ConchError as error:
        raise ConchError(error.what, where=where, got=error.got, expected=error.expected, fix=error.fix) from error
    return settings


def _numbers(key: str, value: Any, where: object) -> tuple[Any, ...]:
    kind: type = int if key == "concurrency" else float
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise ConchError(f"The configuration's {key} is empty", where=where, expected="a number, or a list of them")
    found = tuple(_typed(key, item, kind, where) for item in listed)
    if min(found) <= 0:
        raise ConchError(f"The configuration's {key} must be above zero", where=where, got=min(found))
    return found


def _typed(key: str, value: Any, kind: type, where: object) -> Any:
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise ConchError(
            f"The configuration's {key} is of the wrong kind", where=where, got=repr(value), expected=_WORDS[kind]
        )
    return kind(value)
