"""No false alarm: the repositories that Triton's own documentation describes have no error and no warning.

Notes are allowed where the page leaves something open that a user will meet; they are listed here, so that one more is
a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.documented_repositories import REPOSITORIES
from tests.fakes.lint_repositories import findings, write

# R12: a batch dimension that the page leaves to Triton. R17: a string [1] with batching. R24: CPU instances without a
# thread count. R31: a decoupled member before others. R37: bytecode in poll mode. R38: packages that nothing names.
NOTES: Mapping[str, set[str]] = {
    "auto-completed": {"R12"},
    "sequences": {"R24"},
    "image ensemble": {"R17"},
    "large onnx": {"R17"},
    "python examples": {"R37", "R38"},
    "execution environment": {"R37"},
    "preprocessing": {"R37", "R38"},
    "text in pictures": {"R12", "R37", "R38"},
    "quick deploy": {"R37", "R38"},
    "other backends": {"R17", "R37"},
    "language model": {"R17", "R31", "R37", "R38"},
}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_no_error_and_no_warning(tmp_path: Path, name: str) -> None:
    write(tmp_path, REPOSITORIES[name])
    alarms = [(f.rule, f.severity, f.model, f.place, f.message) for f in findings(tmp_path) if f.severity != "note"]
    assert alarms == []


@pytest.mark.parametrize("name", REPOSITORIES)
def test_notes_are_the_known_ones(tmp_path: Path, name: str) -> None:
    write(tmp_path, REPOSITORIES[name])
    assert {f.rule for f in findings(tmp_path)} == NOTES.get(name, set())
