"""The table of rules: a rule is a function, entered here by its decorator, and its docstring is what --explain prints.

    @rule("R05", "error", "the name is not the folder's")
    def name_matches(model: ModelFolder, context: Context) -> Iterator[Fault]:
        \"\"\"Why it matters. How to mend it.\"\"\"

A rule that looks at several models, or at what is no model, is a `repository_rule` and takes all roots instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from conch.errors import ConfigError, nearest
from conch.lint.context import Context
from conch.lint.finding import Fault, Severity
from conch.lint.model import ModelFolder, RootFolder

ModelCheck = Callable[[ModelFolder, Context], Iterator[Fault]]
RepositoryCheck = Callable[[Sequence[RootFolder], Context], Iterator[Fault]]

# One file for each family; importing it enters its rules.
FAMILIES = ("repository_rules", "onnx_rules", "tensor_rules", "scheduling_rules", "ensemble_rules", "backend_rules")

_NUMBER = re.compile(r"^R[0-9]{2}$")


@dataclass(frozen=True)
class Rule:
    """One rule: what it is called, how bad it is, and the function that looks for it.

    Just one of ``model_check`` and ``repository_check`` is there. ``needs_config``: not asked of a model whose
    config.pbtxt does not parse.
    """

    id: str
    severity: Severity
    title: str
    doc: str
    fixable: bool
    model_check: ModelCheck | None = None
    repository_check: RepositoryCheck | None = None
    needs_config: bool = True


_RULES: dict[str, Rule] = {}


def rule(
    number: str, severity: Severity, title: str, *, fixable: bool = False, needs_config: bool = True
) -> Callable[[ModelCheck], ModelCheck]:
    """Enter a function as a rule that is asked of each model by itself."""

    def enter(check: ModelCheck) -> ModelCheck:
        _enter(Rule(number, severity, title, _doc(check), fixable, model_check=check, needs_config=needs_config))
        return check

    return enter


def repository_rule(
    number: str, severity: Severity, title: str, *, fixable: bool = False
) -> Callable[[RepositoryCheck], RepositoryCheck]:
    """Enter a function as a rule that is asked once, of all roots together."""

    def enter(check: RepositoryCheck) -> RepositoryCheck:
        _enter(Rule(number, severity, title, _doc(check), fixable, repository_check=check))
        return check

    return enter


def _doc(check: Callable[..., object]) -> str:
    return inspect.cleandoc(check.__doc__ or "")


def _enter(new: Rule) -> None:
    if not _NUMBER.match(new.id) or not new.doc or new.id in _RULES:
        raise ValueError(f"{new.id}: a rule is R and two digits, has a docstring, and is there once")
    _RULES[new.id] = new


def all_rules() -> tuple[Rule, ...]:
    """Every rule, by number."""
    for family in FAMILIES:
        if importlib.util.find_spec(f"conch.lint.{family}"):
            importlib.import_module(f"conch.lint.{family}")
    return tuple(_RULES[number] for number in sorted(_RULES))


def rule_named(number: str) -> Rule:
    """The rule of a number, in either case. Raises: ConfigError, with the nearest number."""
    known = {r.id: r for r in all_rules()}
    wanted = number.strip().upper()
    if wanted not in known:
        # "R6" and "RO6" mean R06: by likeness alone R36 would be as near.
        digits = wanted.replace("O", "0").replace("I", "1").lstrip("R")
        meant = f"R{int(digits):02}" if digits.isascii() and digits.isdigit() else ""
        close = meant if meant in known else nearest(wanted, known)
        raise ConfigError(
            f"there is no rule {number}",
            got=number,
            expected=f"{min(known)} to {max(known)}",
            fix=f"did you mean {close}?" if close else "see `conch repo lint --explain all`",
        )
    return known[wanted]
