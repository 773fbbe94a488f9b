"""The samples spam and churn: made the same every time, learnt well enough, and right on their own questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.errors import ExportError
from export.options import ExportOptions
from export.samples import SAMPLES, Sample, churn, sample, spam
from export.samples.spam_messages import LABELS, messages
from export.source import Source


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return {name: sample(name).source(sample(name).options(Path("repository"))) for name in ("spam", "churn")}


def answered(source: Source, inputs: Any) -> str:
    """The label, after the sample's own rules."""
    return str(source.reference(inputs)["label"][0, 0])


def test_a_sample_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(ExportError, match="did you mean churn"):
        sample("chrun")
    assert {"spam", "churn"} <= set(SAMPLES)


@pytest.mark.parametrize("name", ["spam", "churn"])
def test_a_sample_is_exported_under_its_own_name(name: str, tmp_path: Path) -> None:
    module: Sample = sample(name)
    options = module.options(tmp_path)
    assert isinstance(options, ExportOptions)
    assert (options.name, options.repository) == (name, tmp_path)
    options.check()


@pytest.mark.parametrize("name", ["spam", "churn"])
def test_every_question_gets_its_answer(name: str, sources: dict[str, Source]) -> None:
    questions = sample(name).QUESTIONS
    assert [answered(sources[name], q.inputs) for q in questions] == [q.expected for q in questions]


@pytest.mark.parametrize(("name", "at_least"), [("spam", 85.0), ("churn", 78.0)])
def test_accuracy_on_what_was_held_out_is_told(name: str, at_least: float, sources: dict[str, Source]) -> None:
    note = sources[name].notes[0]
    assert "held-out" in note
    assert "made up" in note
    assert float(note.split()[1].rstrip("%")) >= at_least


def test_messages_are_the_same_every_time_in_both_languages_and_of_every_label() -> None:
    made = messages()
    assert made == messages()
    assert {m.label for m in made} == set(LABELS)
    assert len({m.text for m in made}) == len(made) > 500
    korean = [m for m in made if any("가" <= c <= "힣" for c in m.text)]
    assert {m.label for m in korean} == set(LABELS)


def test_no_question_is_among_the_messages() -> None:
    made = {m.text for m in messages()}
    assert all(q.inputs["text"][0, 0] not in made for q in spam.QUESTIONS)


def test_customers_are_the_same_every_time() -> None:
    frame = churn.customers(50)
    assert frame.equals(churn.customers(50))
    assert list(frame) == [*churn.COLUMNS, "churn"]
    assert all(q.inputs[name].dtype == np.float32 for q in churn.QUESTIONS for name in churn.COLUMNS)
