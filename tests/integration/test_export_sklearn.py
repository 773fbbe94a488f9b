"""scikit-learn models through the whole export, served by the real Triton: its answers are scikit-learn's."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from clients import Client, text
from conch.repository import Repository
from export import from_sklearn, steps
from export.cli import export
from export.options import ExportOptions
from export.samples import spam
from export.samples.spam_messages import messages

pytestmark = pytest.mark.integration

CHANCE = np.random.default_rng(3)
ROWS = pd.DataFrame(
    {
        "age": CHANCE.integers(18, 80, 60),
        "fare": np.round(CHANCE.normal(30, 10, 60), 2),
        "city": CHANCE.choice(["Seoul", "부산", "São Paulo"], 60),
    }
)
LEAVES = np.where((ROWS.age > 40) ^ (ROWS.city == "Seoul"), "yes", "no")


@pytest.fixture(scope="module")
def exported(triton: Any) -> dict[str, Any]:
    """Three models in the shared server, each with the estimator that it was made of."""
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "fare"]), ("city", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    models = {
        "skl_columns": (make_pipeline(columns, LogisticRegression()).fit(ROWS, LEAVES), ROWS),
        "skl_decides": (LinearSVC().fit(ROWS[["age", "fare"]].to_numpy(), LEAVES), ROWS[["age", "fare"]]),
        "skl_number": (RandomForestRegressor(5, random_state=0).fit(ROWS[["age", "fare"]], ROWS.fare * 2), ROWS),
    }
    for name, (model, frame) in models.items():
        options = ExportOptions(name=name, repository=triton.repository, max_batch_size=16, trial=False)
        steps.run(from_sklearn.source_of(model, frame, options), options)
        triton.load(name)
    return {name: model for name, (model, _) in models.items()}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_columns_of_numbers_and_text_are_answered_as_scikit_learn_does(
    exported: dict[str, Any], triton: Any, protocol: str
) -> None:
    asked = pd.concat([ROWS[:9], pd.DataFrame({"age": [30], "fare": [12.5], "city": ["Nowhere"]})])
    tensors = {
        "age": asked[["age"]].to_numpy(np.float32),
        "fare": asked[["fare"]].to_numpy(np.float32),
        "city": asked[["city"]].to_numpy(object),
    }
    with Client(triton.http_url if protocol == "http" else triton.grpc_url) as client:
        answer = client.infer("skl_columns", tensors)
    model = exported["skl_columns"]
    np.testing.assert_allclose(answer["scores"], model.predict_proba(asked), atol=1e-5)
    np.testing.assert_allclose(answer["score"][:, 0], model.predict_proba(asked).max(axis=1), atol=1e-5)
    assert text(answer["label"])[:, 0].tolist() == model.predict(asked).tolist()


def test_a_decision_function_is_answered_with_its_sigmoid(exported: dict[str, Any], triton: Any) -> None:
    rows = ROWS[["age", "fare"]].to_numpy(np.float32)[:10]
    with Client(triton.http_url) as client:
        answer = client.infer("skl_decides", features=rows)
    model = exported["skl_decides"]
    due = 1 / (1 + np.exp(-model.decision_function(rows.astype(float))))
    np.testing.assert_allclose(answer["scores"][:, 1], due, atol=1e-5)
    assert text(answer["label"])[:, 0].tolist() == model.predict(rows.astype(float)).tolist()


def test_a_regressor_is_one_model_with_a_prediction(exported: dict[str, Any], triton: Any) -> None:
    with Client(triton.grpc_url) as client:
        answer = client.infer(
            "skl_number", age=ROWS[["age"]].to_numpy(np.float32)[:5], fare=ROWS[["fare"]].to_numpy(np.float32)[:5]
        )
    due = exported["skl_number"].predict(ROWS[["age", "fare"]].astype({"fare": np.float32})[:5])
    np.testing.assert_allclose(answer["prediction"][:, 0], due, rtol=1e-5)
    assert not (triton.repository / "skl_number_model").exists()


def test_the_command_exports_a_file_with_rules_that_hold(triton: Any, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        ["무료 쿠폰", "점심 먹자"] * 5, ["spam", "ham"] * 5
    )
    joblib.dump(model, tmp_path / "mail.joblib")
    (tmp_path / "mail.joblib").chmod(0o644)
    (tmp_path / "mail.csv").write_text("message\n무료 쿠폰\n점심 먹자\n", encoding="utf-8")
    (tmp_path / "rules.yaml").write_text("others: unsure\nthreshold: 0.6\n", encoding="utf-8")
    arguments = ["sklearn", "mail.joblib", "--sample", "mail.csv", "--rules", "rules.yaml", "--no-trial", "--json"]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        result = CliRunner().invoke(
            export, [*arguments, "--name", "skl_mail", "--repository", str(triton.repository)], catch_exceptions=False
        )
    finally:
        os.chdir(before)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["name"] == "skl_mail"
    triton.load("skl_mail")
    with Client(triton.http_url) as client:
        answer = client.infer("skl_mail", text=[["무료 쿠폰"], ["점심 먹자"], ["전혀 다른 말"]])
    assert text(answer["label"])[:, 0].tolist() == ["spam", "ham", "unsure"]


def spam_version(folder: Path, rules: str | None = None, only: str | None = None) -> Path:
    """A repository with the spam sample: as it is, with other rules, or trained on one language alone."""
    options = dataclasses.replace(spam.options(folder / "models"), trial=False)
    if rules is not None:
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        options = dataclasses.replace(options, rules=folder / "rules.yaml")
    made = messages()
    if only == "English":
        made = [m for m in made if m.text.isascii()]
    frame = pd.DataFrame({"text": [m.text for m in made[:50]]})
    steps.run(from_sklearn.source_of(spam.train(made), frame, options), options)
    return options.repository


def drop(version: Path, model: Path, number: int) -> None:
    """Put a version folder into a live model: copied beside the repository, then renamed into place."""
    staged = model.parent.parent / f".dropping_{model.name}"
    shutil.copytree(version, staged)
    os.rename(staged, model / str(number))


def until(client: Client, question: str, wanted: Any, limit_s: float = 30) -> tuple[str, Any]:
    """Ask until the answer's label and scores are as wanted; the last answer when time is up."""
    end = time.monotonic() + limit_s
    while True:
        answer = client.infer("spam", text=[[question]])
        found = (text(answer["label"])[0, 0], answer["scores"][0])
        if wanted(*found) or time.monotonic() > end:
            return found
        time.sleep(0.1)


def test_dropping_version_folders_of_spam_in_poll_mode_changes_the_answers_with_no_call(
    start_server: Any, tmp_path: Path
) -> None:
    question = "축하합니다! 무료 쿠폰 당첨, 지금 신청하세요"
    folders = [tmp_path / name for name in ("live", "strict", "english")]
    for folder in folders:
        folder.mkdir()
    live = spam_version(folders[0])
    strict = spam_version(folders[1], rules="others: ask a person\nthreshold: 1.0\n")
    english = spam_version(folders[2], only="English")
    server = start_server(live, control="poll", poll_interval_s=1)
    with Client(server.http_url) as client:
        label, scores = until(client, question, lambda label, scores: True)
        assert label == "spam"
        # Other rules: the label changes, and the scores stay.
        drop(strict / "spam_postprocess" / "1", live / "spam_postprocess", 2)
        changed, same = until(client, question, lambda label, scores: label == "ask a person")
        assert changed == "ask a person"
        np.testing.assert_allclose(same, scores)
        # Other weights: a model that knows no Korean is less sure.
        drop(english / "spam_model" / "1", live / "spam_model", 2)
        _, unsure = until(client, question, lambda label, scores_: scores_.max() < scores.max() - 0.1)
        assert unsure.max() < scores.max() - 0.1
    assert Repository(live).versions("spam_model") == [1, 2]
