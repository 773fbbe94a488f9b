"""Sample models: small, trained or loaded in seconds, on data that packages carry or that the module makes and says so.

Each sample NAME is the module ``export.samples.NAME``, imported when it is asked for, with three things in it:

    def options(repository: Path) -> ExportOptions   # name=NAME; precision, batch size, rules... that fit this sample
    def source(options: ExportOptions) -> Source     # trains or loads the model; `export.steps.run` does the rest
    QUESTIONS: tuple[Question, ...]                  # a few public inputs for `conch demo`, not from the training data

So an export of a sample is ``module = sample(name)``, ``chosen = module.options(repository)``, then
``steps.run(module.source(chosen), chosen)``. A user may change the options in between (`dataclasses.replace`).

A sample that generates text has the options and the source of `export.llm`, whose steps are its own: `run` knows which.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from conch.errors import ExportError, nearest
from conch.tensor_spec import Array

if TYPE_CHECKING:
    from export.report import Report

# In the order in which they are exported and shown.
SAMPLES = ("embeddings", "spam", "churn", "digits", "chat")

# Those that generate text: decoupled, and asked for an answer in pieces.
GENERATING = ("chat",)


@dataclass(frozen=True)
class Question:
    """One thing to ask a sample's pipeline.

    ``text`` is what a person reads ("a handwritten 7"); ``inputs`` are the public tensors, each a batch of 1.
    ``expected`` is the answer a person would give, where there is one.
    """

    text: str
    inputs: Mapping[str, Array]
    expected: str | None = None


class Sample(Protocol):
    """What a sample's module holds."""

    @property
    def QUESTIONS(self) -> tuple[Question, ...]:  # noqa: N802 - a module's constant
        """A few public inputs to show the model with."""

    def options(self, repository: Path) -> Any:
        """The options that fit this sample, for an export into ``repository``."""

    def source(self, options: Any) -> Any:
        """Train or load the model. Raises: ExportError."""


def sample(name: str) -> Sample:
    """The module of a sample. Raises: ExportError, with the nearest name."""
    if name not in SAMPLES:
        close = nearest(name, SAMPLES)
        raise ExportError(
            f"there is no sample named {name}",
            got=name,
            expected=", ".join(SAMPLES),
            fix=f"did you mean {close}?" if close else "`conch export sample all` exports every one",
        )
    return cast(Sample, importlib.import_module(f"{__name__}.{name}"))


def run(source: Any, options: Any) -> Report:
    """Export a sample's source by the steps of its kind. Raises: ConchError."""
    from export import steps
    from export.llm import steps as llm_steps
    from export.llm.options import LlmOptions

    return llm_steps.run(source, options) if isinstance(options, LlmOptions) else steps.run(source, options)


def missing_packages(name: str) -> str:
    """Why a sample cannot be exported here, with what to install; "" when it can."""
    if name not in GENERATING:
        return ""
    from export.llm.convert import check_installed

    try:
        check_installed()
    except ExportError as error:
        return f"{error.got}; install it: {error.fix}"
    return ""
