"""Load the staged version in a scratch Triton and ask it, before anyone else can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conch.manifest import Golden, Parity
from conch.repository import Stage
from export.options import ExportOptions
from export.source import Source


@dataclass(frozen=True)
class Trial:
    """What the scratch server said: a note for the report, parity of the pipeline's public outputs, its answers."""

    note: str
    parity: tuple[Parity, ...] = ()
    golden: Mapping[str, tuple[Golden, ...]] = field(default_factory=dict)


def run(stage: Stage, source: Source, options: ExportOptions) -> Trial:
    """Serve the stage, ask the public model, compare. Raises: ExportError, ServerError."""
    return Trial("not tried")
