"""The samples spam and churn: made the same every time, learnt well enough, and right on their own questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conch.errors import ExportError
from export.options import ExportOptions
from export.samples import SAMPLES, Sample, churn, sample, spam
from export.samples.spam_messages import LABELS, messages
from export.source import Source


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return {name: sample(name).source(sample(name).options(Path("repository"))) for name in ("spam", "churn")}


def answered(source: Source, inputs: Any) -> tuple[str, float]:
    """The label of the highest score, and the score, before any rules."""
    assert source.pipeline is not None
    assert source.pipeline.reference is not None
    assert source.pipeline.postprocess is not None
    labels = bytes(source.pipeline.postprocess.assets["labels.txt"]).decode().split()  # type: ignore[arg-type]
    scores = source.pipeline.reference(inputs)["scores"][0]
    return labels[int(scores.argmax())], float(scores.max())


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


def test_every_churn_question_gets_its_answer(sources: dict[str, Source]) -> None:
    assert [answered(sources["churn"], q.inputs)[0] for q in churn.QUESTIONS] == [q.expected for q in churn.QUESTIONS]


def test_every_spam_question_gets_its_answer_under_the_rules(sources: dict[str, Source]) -> None:
    rules = yaml.safe_load(Path(spam.__file__).with_name("spam_rules.yaml").read_text(encoding="utf-8"))
    assert set(rules["thresholds"]) < set(LABELS)
    found = []
    for question in spam.QUESTIONS:
        label, score = answered(sources["spam"], question.inputs)
        found.append(label if score >= rules["thresholds"].get(label, rules["threshold"]) else rules["others"])
    assert found == [q.expected for q in spam.QUESTIONS]


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
