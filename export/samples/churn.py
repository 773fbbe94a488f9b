"""Churn: does a customer leave? A scaler and a random forest over four columns of made customers.

The data is made here, from a seed, with a rule that a model can find: customers leave early, when they pay much a
month, and when they are young; chance decides the rest, so no model is always right. It says nothing about real ones.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from export.options import ExportOptions
from export.samples import Question
from export.source import Source

COLUMNS = ("age", "tenure", "monthly_charges", "total_charges")
TREES = 100


def _question(text: str, age: float, tenure: float, monthly_charges: float, expected: str) -> Question:
    row = (age, tenure, monthly_charges, round(tenure * monthly_charges, 2))
    inputs = {name: np.array([[value]], dtype=np.float32) for name, value in zip(COLUMNS, row, strict=True)}
    return Question(text, inputs, expected)


QUESTIONS = (
    _question("24 years old, 2 months with us, 105 a month", 24, 2, 105.0, "leaves"),
    _question("61 years old, 60 months with us, 35 a month", 61, 60, 35.0, "stays"),
    _question("38 years old, 9 months with us, 95 a month", 38, 9, 95.0, "leaves"),
)


def options(repository: Path) -> ExportOptions:
    """Exported as `churn`; a row is small, so batches may be large."""
    return ExportOptions(name="churn", repository=repository, max_batch_size=256)


def customers(count: int = 3000, seed: int = 11) -> Any:
    """Made customers as a DataFrame of COLUMNS and `churn`: "leaves" or "stays". The same for a seed."""
    import pandas as pd

    chance = np.random.default_rng(seed)
    age = chance.integers(18, 85, count).astype(float)
    tenure = np.minimum(chance.exponential(28, count).round() + 1, 72)
    monthly_charges = chance.uniform(20, 120, count).round(2)
    # Prices changed over the years, so what was paid is not just the product.
    total_charges = (tenure * monthly_charges * chance.uniform(0.9, 1.1, count)).round(2)
    pull = 1.2 + 0.045 * (monthly_charges - 60) - 0.11 * tenure - 0.02 * (age - 45)
    leaves = chance.random(count) < 1 / (1 + np.exp(-pull))
    frame = pd.DataFrame(dict(zip(COLUMNS, (age, tenure, monthly_charges, total_charges), strict=True)))
    return frame.assign(churn=np.where(leaves, "leaves", "stays"))


def train(frame: Any) -> Any:
    """A fitted pipeline of a scaler and a forest, deep enough to learn and small enough to send."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    forest = RandomForestClassifier(n_estimators=TREES, min_samples_leaf=8, random_state=0)
    return Pipeline([("scale", StandardScaler()), ("forest", forest)]).fit(frame[list(COLUMNS)], frame["churn"])


def source(options: ExportOptions) -> Source:
    """Train on three quarters of the customers, and compare on the rest. Takes a second."""
    from export.from_sklearn import source_of

    frame = customers()
    seen, held_out = frame[len(frame) // 4 :], frame[: len(frame) // 4]
    model = train(seen)
    right = model.predict(held_out[list(COLUMNS)]) == held_out["churn"]
    most = held_out["churn"].value_counts(normalize=True).max()
    accuracy = (
        f"accuracy {right.mean():.1%} on {len(held_out)} held-out customers ({most:.1%} by always saying the same); "
        "all are made up"
    )
    exported = source_of(model, held_out, options)
    return dataclasses.replace(
        exported,
        provenance={**exported.provenance, "sample": "churn", "accuracy": accuracy},
        notes=(accuracy, *exported.notes),
    )
