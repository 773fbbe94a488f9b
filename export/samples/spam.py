"""Spam: ham, spam or phishing? TF-IDF and logistic regression on made messages, English and Korean, with rules.

The data is made here (see spam_messages), so the accuracy tells how well the model does on messages of kinds that it
was not trained on, not how well it would do on yours.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from export.options import ExportOptions
from export.samples import Question
from export.samples.spam_messages import Message, messages
from export.source import Source

# Of every so many templates one is held out.
HELD_OUT = 5


def _question(text: str, expected: str) -> Question:
    return Question(text, {"text": np.array([[text]], dtype=object)}, expected)


QUESTIONS = (
    _question("Lunch at the café tomorrow? I'll bring the slides", "ham"),
    _question("FREE bonus! Win $5,000 at MegaStore today only, claim now", "spam"),
    _question("Your bank account is locked, verify your password at http://login.example", "phishing"),
    _question("내일 점심 같이 먹을까? 카페에서 만나자", "ham"),
    _question("(광고) 오늘만 무료 쿠폰, 지금 가입하면 보너스 지급", "spam"),
    _question("엄마 나 폰 고장 났어, 이 계좌로 50만원 보내 줘", "phishing"),
    _question("The weather will be fine in the mountains", "others"),
)


def options(repository: Path) -> ExportOptions:
    """Exported as `spam`, with its rules; requests are small, so batches may be large."""
    rules = Path(__file__).with_name("spam_rules.yaml")
    return ExportOptions(name="spam", repository=repository, rules=rules, max_batch_size=64)


def train(made: list[Message]) -> Any:
    """A fitted pipeline: words and pairs of words, weighted, into a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    steps = [
        ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
        ("label", LogisticRegression(C=20.0, max_iter=500)),
    ]
    return Pipeline(steps).fit([m.text for m in made], [m.label for m in made])


def source(options: ExportOptions) -> Source:
    """Train on all but the held-out kinds of messages, and compare on those. Takes a second."""
    import pandas as pd

    from export.from_sklearn import source_of

    made = messages()
    seen = [m for m in made if m.template % HELD_OUT]
    held_out = [m for m in made if not m.template % HELD_OUT]
    model = train(seen)
    right = model.predict([m.text for m in held_out]) == [m.label for m in held_out]
    accuracy = (
        f"accuracy {right.mean():.1%} on {len(held_out)} held-out messages, of kinds that none of the {len(seen)} for "
        "training is of; all are made up"
    )
    exported = source_of(model, pd.DataFrame({"text": [m.text for m in held_out]}), options)
    provenance = {**exported.provenance, "sample": "spam", "accuracy": accuracy}
    return dataclasses.replace(
        exported,
        provenance=provenance,
        notes=(accuracy, *exported.notes),
        infer_arguments=f'--text "{QUESTIONS[2].text}"',
    )
