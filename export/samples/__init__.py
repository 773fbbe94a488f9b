"""Sample models: small, trained or loaded in seconds, on data that packages carry or that the module makes and says so.

Each sample NAME is the module ``export.samples.NAME``, imported when it is asked for, with three things in it:

    def options(repository: Path) -> ExportOptions   # name=NAME; precision, batch size, rules... that fit this sample
    def source(options: ExportOptions) -> Source     # trains or loads the model; `export.steps.run` does the rest
    QUESTIONS: tuple[Question, ...]                  # a few public inputs for `conch demo`, not from the training data

So an export of a sample is ``module = sample(name)``, ``chosen = module.options(repository)``, then
``steps.run(module.source(chosen), chosen)``. A user may change the options in between (`dataclasses.replace`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from conch.errors import ExportError, nearest
from conch.tensor_spec import Array
from export.options import ExportOptions
from export.source import Source

# In the order in which they are exported and shown.
SAMPLES = ("embeddings", "spam", "churn", "digits")


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

    def options(self, repository: Path) -> ExportOptions:
        """The options that fit this sample, for an export into ``repository``."""

    def source(self, options: ExportOptions) -> Source:
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
