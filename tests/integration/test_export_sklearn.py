"""scikit-learn models through the whole export, served by the real Triton: its answers are scikit-learn's."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
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
from conch.errors import ConchError
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


def test_a_classifier_is_one_model_with_the_record_of_what_was_compiled_in(
    exported: dict[str, Any], triton: Any
) -> None:
    there = {p.name for p in triton.repository.iterdir() if p.name.startswith("skl_decides")}
    assert there == {"skl_decides"}
    manifest = Repository(triton.repository).manifest("skl_decides", 1)
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "labels.txt"}
    assert [row.output for row in manifest.parity] == ["label", "score", "scores"]
    assert manifest.golden[0].outputs["label"]


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
    manifest = Repository(triton.repository).manifest("skl_mail", 1)
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "labels.txt", "rules.yaml"}
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


class Asking(threading.Thread):
    """A client that asks one question over and over until it is told to stop; keeps what differs, and what fails."""

    def __init__(self, url: str, question: str) -> None:
        super().__init__(daemon=True)
        self.url, self.question = url, question
        self.failures: list[str] = []
        self.answers: list[tuple[str, float]] = []
        self.count = 0
        self.told = threading.Event()

    def run(self) -> None:
        with Client(self.url) as client:
            while not self.told.is_set():
                try:
                    answer = client.infer("spam", text=[[self.question]])
                except ConchError as error:
                    self.failures.append(str(error))
                    continue
                found = (text(answer["label"])[0, 0], round(float(answer["score"][0, 0]), 3))
                self.count += 1
                if not self.answers or self.answers[-1] != found:
                    self.answers.append(found)

    def until(self, wanted: Callable[[str, float], bool], limit_s: float = 30) -> bool:
        """Wait until the latest answer is as wanted."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if self.answers and wanted(*self.answers[-1]):
                return True
            time.sleep(0.05)
        return False


def test_dropping_a_version_folder_into_spam_in_poll_mode_changes_the_answers_with_no_call(
    start_server: Any, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("live", "strict", "english")]
    for folder in folders:
        folder.mkdir()
    live = spam_version(folders[0])
    strict = spam_version(folders[1], rules="others: ask a person\nthreshold: 1.0\n")
    english = spam_version(folders[2], only="English")
    server = start_server(live, control="poll", poll_interval_s=1)
    # Nothing but inference is asked of the server from here on.
    clients = [Asking(url, "축하합니다! 무료 쿠폰 당첨, 지금 신청하세요") for url in (server.http_url, server.grpc_url)]
    for client in clients:
        client.start()
    try:
        assert all(client.until(lambda label, score: label == "spam") for client in clients)
        sure = clients[0].answers[-1][1]
        # Other rules: the label changes, and the score stays.
        drop(strict / "spam" / "1", live / "spam", 2)
        assert all(client.until(lambda label, score: (label, score) == ("ask a person", sure)) for client in clients)
        # Other weights: a model that knows no Korean is less sure.
        drop(english / "spam" / "1", live / "spam", 3)
        assert all(client.until(lambda label, score: score < sure - 0.1) for client in clients)
    finally:
        for client in clients:
            client.told.set()
        for client in clients:
            client.join(30)
    assert [client.failures for client in clients] == [[], []]
    # Each version's answer once, in order: none comes back after the next.
    assert [len(client.answers) for client in clients] == [3, 3]
    assert min(client.count for client in clients) > 10
    assert sorted(p.name for p in live.iterdir()) == ["spam"]
    assert Repository(live).versions("spam") == [1, 2, 3]
