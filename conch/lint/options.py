"""What the linter is told: the target, and the rules that are switched off, each with a reason.

Options come from the command line first, then from a file `conch-lint.yaml` in the repository's root or beside it:

    target: "24.10"
    cpus: 4
    gpu: false
    latency-budget-ms: 50
    shm-bytes: 1073741824
    switch-off:
      - rule: R21
        models: ["digits_*"]          # all models when left out
        reason: clients send one shape only
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conch.errors import ConfigError, nearest
from conch.lint.model import read_text
from conch.lint.rules import rule_named

OPTIONS_FILE = "conch-lint.yaml"


@dataclass(frozen=True)
class Off:
    """A rule that is switched off. ``models`` are names with * and ?, () for all; ``where`` says who did it."""

    rule: str
    reason: str
    models: tuple[str, ...] = ()
    where: str = ""

    def covers(self, rule: str, model: str) -> bool:
        """Whether a finding of this rule in this model is meant."""
        return rule == self.rule and (not self.models or any(fnmatch.fnmatchcase(model, m) for m in self.models))


@dataclass(frozen=True)
class LintOptions:
    """What to judge by; None is "not said", and left to the options file or the default.

    ``target`` is an image tag ("24.10"). ``cpus``, ``gpu``, ``latency_budget_ms`` and ``shm_bytes`` describe the
    machine that is to serve. ``digests`` False skips hashing the files of published versions (R09). ``find_file`` False
    leaves the repositories' own options files unread.
    """

    target: str | None = None
    cpus: int | None = None
    gpu: bool | None = None
    latency_budget_ms: float | None = None
    shm_bytes: int | None = None
    digests: bool = True
    off: tuple[Off, ...] = ()
    find_file: bool = True


def off(number: str, reason: str, *, models: Sequence[str] = (), where: str = "") -> Off:
    """A rule switched off. Raises: ConfigError for a rule that does not exist, or without a reason."""
    known = rule_named(number)
    if not reason.strip():
        raise ConfigError(
            f"{known.id} is switched off without a reason",
            where=where,
            expected="why it does not apply here",
            fix=f'write one, e.g. "{known.id}=clients send one shape only"',
        )
    return Off(known.id, " ".join(reason.split()), tuple(models), where)


def find_options_file(root: Path) -> Path | None:
    """The options file of a repository: in its root (Triton looks at folders only), or beside it."""
    beside = (root / OPTIONS_FILE, root.absolute().parent / OPTIONS_FILE)
    return next((path for path in beside if path.is_file()), None)


_FIELDS: Mapping[str, tuple[str, type | tuple[type, ...]]] = {
    "target": ("target", str),
    "cpus": ("cpus", int),
    "gpu": ("gpu", bool),
    "latency-budget-ms": ("latency_budget_ms", (int, float)),
    "shm-bytes": ("shm_bytes", int),
    "switch-off": ("off", list),  # YAML 1.1 reads a bare "off" as false
}


def read_options(path: Path) -> LintOptions:
    """Read an options file. Raises: ConfigError, with the nearest name for a key that is not known."""
    import yaml

    text, problem = read_text(path)
    if text is None:
        raise ConfigError("the lint options cannot be read", where=path, got=problem)
    try:
        document = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError("the lint options are no YAML", where=path, got=error) from error
    if not isinstance(document, dict):
        raise ConfigError("the lint options are no mapping", where=path, got=type(document).__name__)
    values: dict[str, Any] = {}
    for key, value in document.items():
        name, kind = _known(str(key), _FIELDS, path)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{key} has the wrong type", where=path, got=repr(value), expected=_kind_name(kind))
        values[name] = tuple(_read_off(entry, path) for entry in value) if name == "off" else value
    return LintOptions(**values)


_OFF_FIELDS: Mapping[str, type] = {"rule": str, "models": list, "reason": str}


def _read_off(entry: object, path: Path) -> Off:
    if not isinstance(entry, dict):
        raise ConfigError(
            "an entry of switch-off is no mapping", where=path, got=repr(entry), expected="{rule: R21, reason: why}"
        )
    for key, value in entry.items():
        kind = _known(str(key), _OFF_FIELDS, path)
        if not isinstance(value, kind):
            raise ConfigError(
                f"switch-off: {key} has the wrong type", where=path, got=repr(value), expected=kind.__name__
            )
    models = [str(m) for m in entry.get("models", [])]
    return off(entry.get("rule", ""), entry.get("reason", ""), models=models, where=str(path))


def _known(key: str, table: Mapping[str, Any], path: Path) -> Any:
    if key not in table:
        close = nearest(key, table)
        raise ConfigError(
            f"the lint options have no key {key}",
            where=path,
            got=key,
            expected=", ".join(table),
            fix=f"did you mean {close}?" if close else None,
        )
    return table[key]


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__


def merged(given: LintOptions, from_file: LintOptions) -> LintOptions:
    """The options given, with what they leave open taken from a file's."""
    taken = {
        name: getattr(given, name) if getattr(given, name) is not None else getattr(from_file, name)
        for name in ("target", "cpus", "gpu", "latency_budget_ms", "shm_bytes")
    }
    return replace(given, **taken, off=(*given.off, *from_file.off))
