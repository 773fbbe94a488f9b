"""How a converted language model is judged, on logits that are written down here."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from conch.errors import ParityError
from export.llm.compare import Answer, Expected, Logits, Prompt, compare, describe, read

WORDS = 8
PROMPT = Prompt("What?", "What?", np.array([1, 2]), is_chat=False)


def says(following: dict[int, int], second: dict[int, tuple[int, float]] | None = None) -> Logits:
    """A model for which a token decides the next: logit 10; ``second`` gives another token some logit, too."""

    def logits(ids: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(ids), WORDS), np.float32)
        for place, token in enumerate(ids.tolist()):
            scores[place, following[token]] = 10.0
            if second and token in second:
                other, value = second[token]
                scores[place, other] = value
        return scores

    return logits


COUNTING = says({token: (token + 1) % WORDS for token in range(WORDS)})
TEXT = np.arange(WORDS)


@pytest.fixture
def expected() -> Expected:
    tokens = np.array([3, 4, 5])
    lead = read(COUNTING, np.concatenate([PROMPT.ids, tokens])).lead[1:-1]
    return Expected((Answer(PROMPT, tokens, lead),), TEXT, read(COUNTING, TEXT))


@pytest.mark.parametrize("weight_format", ["fp16", "int8", "int4"])
def test_the_same_model_agrees_with_itself(weight_format: str, expected: Expected) -> None:
    agreement = compare(expected, COUNTING, weight_format)
    assert (agreement.greedy_tokens, agreement.greedy_agreement, agreement.text_agreement) == (3, 1.0, 1.0)
    assert agreement.perplexity == pytest.approx(agreement.source_perplexity)
    assert describe(agreement)["greedy tokens equal"] == "100.0% of 3"


def test_fp16_must_say_every_token_of_the_source(expected: Expected) -> None:
    other = says({**{t: (t + 1) % WORDS for t in range(WORDS)}, 3: 6})
    with pytest.raises(ParityError, match="does not answer as its source") as raised:
        compare(expected, other, "fp16")
    assert (raised.value.where, raised.value.got, raised.value.expected) == (
        "token 2 of the answer to 'What?'",
        "token 6",
        "token 4",
    )


def test_a_token_that_rounding_decides_may_differ(expected: Expected) -> None:
    other = says({**{t: (t + 1) % WORDS for t in range(WORDS)}, 3: 6}, second={3: (4, 9.99)})
    unsure = replace(expected.answers[0], lead=np.array([1.0, 0.001, 1.0]))
    assert compare(replace(expected, answers=(unsure,)), other, "fp16").greedy_agreement == pytest.approx(2 / 3)


def test_int8_reports_the_share_of_equal_tokens(expected: Expected) -> None:
    other = says({**{t: (t + 1) % WORDS for t in range(WORDS)}, 3: 6}, second={3: (4, 9.5)})
    agreement = compare(expected, other, "int8")
    assert agreement.greedy_agreement == pytest.approx(2 / 3)
    assert agreement.text_agreement == pytest.approx(7 / 8)
    assert agreement.perplexity > agreement.source_perplexity


def test_a_model_that_lost_its_language_is_refused(expected: Expected) -> None:
    lost = says(dict.fromkeys(range(WORDS), 0))
    with pytest.raises(ParityError, match="no longer knows its language") as raised:
        compare(expected, lost, "int4")
    assert "2 times the source's" in str(raised.value.expected)


def test_perplexity_is_that_of_the_true_next_token() -> None:
    def undecided(ids: np.ndarray) -> np.ndarray:
        return np.zeros((len(ids), WORDS), np.float32)

    reading = read(undecided, TEXT)
    assert reading.loss == pytest.approx(math.log(WORDS))
    assert reading.perplexity == pytest.approx(WORDS)
    assert reading.lead.tolist() == [0.0] * WORDS
