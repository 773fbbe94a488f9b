"""Text vectorizers: the ONNX file counts the words that scikit-learn counts, in every script, or export says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from conch.errors import ExportError
from export import from_sklearn
from export.from_sklearn_text import token_expression
from export.options import ExportOptions
from export.run_file import open_onnx

OPTIONS = ExportOptions(name="m", max_batch_size=16)

TEXTS = [
    "Free money NOW now, click here café",
    "see you tomorrow at lunch",
    "무료 쿠폰 지금 클릭 하세요",
    "내일 점심 같이 먹어요",
    "WIN a prize! call 12345 the end",
    "the meeting moved to 3 pm",
    "당첨 축하 합니다 the prize",
    "엄마 나 폰 고장 났어 free free free",
    "ÉCOLE naïve Straße",
    "x",
    "   ",
    "!!!",
    "a-b c_d e, f",
    "日本語 テキスト x² ½ ①",
    "tab\tand\nline\u00a0and\u3000wide",
] * 2
LABELS = [1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0] * 2
FRAME = pd.DataFrame({"text": TEXTS})


def answer(model: Any, frame: Any, folder: Path, feeds: dict[str, Any]) -> Any:
    """What the exported file gives for some tensors."""
    source = from_sklearn.source_of(model, frame, OPTIONS)
    source.write(folder / "model.onnx", OPTIONS)
    return open_onnx(folder / "model.onnx")(feeds)["scores"]


def texts(values: list[str]) -> dict[str, Any]:
    return {"text": np.array(values, dtype=object).reshape(-1, 1)}


CONVERTED = {
    "as it is": {},
    "one-letter words": {"token_pattern": r"(?u)\b\w+\b"},
    "what is not space": {"token_pattern": r"\S+"},
    "a class": {"token_pattern": r"[^\s,!]+", "ngram_range": (1, 2)},
    "a class with words": {"token_pattern": r"[\w-]{2,}"},
    "alternatives": {"token_pattern": r"\d+|[a-z]+"},
    "pairs": {"ngram_range": (1, 2)},
    "pairs whose words were removed": {"ngram_range": (1, 2), "max_features": 20},
    "pairs, and none was left": {"ngram_range": (1, 2), "min_df": 4},
    "pairs and triples": {"ngram_range": (2, 3)},
    "logarithms": {"sublinear_tf": True},
    "logarithms, not normalized": {"sublinear_tf": True, "norm": None},
    "stop words": {"stop_words": "english"},
    "once is enough": {"binary": True},
    "sums of 1": {"norm": "l1"},
    "no weights": {"use_idf": False},
    "case kept": {"lowercase": False},
    "a vocabulary": {"vocabulary": ["free", "the", "무료"]},
}


@pytest.mark.parametrize("settings", CONVERTED.values(), ids=CONVERTED)
def test_a_vectorizer_of_any_settings_counts_the_same_words(settings: dict[str, Any], tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(**settings), LogisticRegression(C=10)).fit(TEXTS, LABELS)
    got = answer(model, FRAME, tmp_path, texts(TEXTS))
    np.testing.assert_allclose(got, model.predict_proba(TEXTS), atol=1e-6)


@pytest.mark.parametrize("text", ["", "   ", "x", "한", "unheard-of words"])
def test_a_text_without_known_words_is_answered_alone_too(text: str, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    got = answer(model, FRAME, tmp_path, texts([text]))
    np.testing.assert_allclose(got, model.predict_proba([text]), atol=1e-6)


NESTED = {
    "counts": lambda: make_pipeline(CountVectorizer(), MultinomialNB()),
    "counts, then weights": lambda: make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), TfidfTransformer(sublinear_tf=True), LogisticRegression()
    ),
    "a union": lambda: make_pipeline(
        FeatureUnion([("words", TfidfVectorizer()), ("pairs", CountVectorizer(ngram_range=(2, 2)))]),
        LogisticRegression(),
    ),
    "a search": lambda: GridSearchCV(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [1.0, 2.0]}, cv=2
    ),
    "votes": lambda: VotingClassifier(
        [(str(n), make_pipeline(TfidfVectorizer(max_features=n), LogisticRegression())) for n in (9, 20)], voting="soft"
    ),
    "a calibrated end": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=2)),
    "a forest": lambda: make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0)),
}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_vectorizers_are_found_in_pipelines_and_unions(make: Any, tmp_path: Path) -> None:
    model = make().fit(TEXTS, LABELS)
    got = answer(model, FRAME, tmp_path, texts(TEXTS))
    np.testing.assert_allclose(got, model.predict_proba(TEXTS), atol=2e-5)


def test_vectorizers_are_found_among_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"title": TEXTS, "length": [float(len(t)) for t in TEXTS], "body": TEXTS[::-1]})
    columns = ColumnTransformer(
        [
            ("title", TfidfVectorizer(), "title"),
            ("body", make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)), "body"),
            ("length", StandardScaler(), ["length"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)
    feeds = {name: frame[[name]].to_numpy(np.float32 if name == "length" else object) for name in frame}
    got = answer(model, frame, tmp_path, feeds)
    np.testing.assert_allclose(got, model.predict_proba(frame), atol=1e-6)


def test_the_graph_asks_for_a_locale_that_slim_images_have(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    answer(model, FRAME, tmp_path, texts(TEXTS))
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    locales = [a.s for n in nodes if n.op_type == "StringNormalizer" for a in n.attribute if a.name == "locale"]
    assert locales == [b"C.UTF-8"]


def test_the_users_own_model_is_not_changed(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(TEXTS, LABELS)
    before = dict(model[0].vocabulary_)
    answer(model, FRAME, tmp_path, texts(TEXTS))
    assert model[0].vocabulary_ == before
    assert model[0].ngram_range == (1, 2)


REFUSED = {
    "letters": ({"analyzer": "char", "ngram_range": (2, 3)}, "analyzer=char"),
    "letters of words": ({"analyzer": "char_wb"}, "analyzer=char_wb"),
    "a function": ({"analyzer": str.split}, "analyzer=split"),
    "a tokenizer": ({"tokenizer": str.split}, "tokenizer=split"),
    "a preprocessor": ({"preprocessor": str.lower}, "preprocessor=lower"),
    "accents": ({"strip_accents": "unicode"}, "strip_accents=unicode"),
    "pairs over stop words": ({"stop_words": "english", "ngram_range": (1, 2)}, "n-grams that skip words"),
    "a group": ({"token_pattern": r"(\w)\w+"}, "groups that capture"),
    "a lookahead": ({"token_pattern": r"\w+(?=\s)"}, "lookahead"),
    "an edge that matters": ({"token_pattern": r"\b\w{3}\b"}, r"\b has no counterpart"),
    "tokens with spaces in pairs": ({"token_pattern": r"[^,!]+", "ngram_range": (1, 2)}, "tokens that hold spaces"),
}


@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern'")
@pytest.mark.parametrize(("settings", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_onnx_cannot_do_is_refused_by_its_step(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(**settings), LogisticRegression()).fit(TEXTS, LABELS)
    source = from_sklearn.source_of(model, FRAME, OPTIONS)
    with pytest.raises(ExportError, match="step tfidfvectorizer") as raised:
        source.write(tmp_path / "model.onnx", OPTIONS)
    assert reason in str(raised.value)
    assert not (tmp_path / "model.onnx").exists()


def test_hashed_words_are_refused_with_another_way(tmp_path: Path) -> None:
    model = make_pipeline(HashingVectorizer(n_features=16), LogisticRegression()).fit(TEXTS, LABELS)
    with pytest.raises(ExportError, match="TfidfVectorizer"):
        from_sklearn.source_of(model, FRAME, OPTIONS).write(tmp_path / "model.onnx", OPTIONS)


def test_a_step_is_named_by_its_place_among_columns(tmp_path: Path) -> None:
    columns = ColumnTransformer([("title", TfidfVectorizer(strip_accents="ascii"), "text")])
    model = make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)
    with pytest.raises(ExportError, match="step columntransformer/title"):
        from_sklearn.source_of(model, FRAME, OPTIONS).write(tmp_path / "model.onnx", OPTIONS)


def test_what_must_come_after_the_vectorizer_is_told_so(tmp_path: Path) -> None:
    model = CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2).fit(TEXTS, LABELS)
    with pytest.raises(ExportError, match="step CalibratedClassifierCV") as raised:
        from_sklearn.source_of(model, FRAME, OPTIONS).write(tmp_path / "model.onnx", OPTIONS)
    assert "put encoders and vectorizers before it" in str(raised.value)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(?u)\b\w\w+\b", r"[\p{L}\p{N}_][\p{L}\p{N}_]+"),
        (r"\b\w{2,}\b", r"[\p{L}\p{N}_]{2,}"),
        (r"[\w'-]+", r"[\p{L}\p{N}_'-]+"),
        (r"[^\d]+", r"[^\p{Nd}]+"),
        (r"\W+", r"[^\p{L}\p{N}_]+"),
        (r"(?:ab)+\.", r"(?:ab)+\."),
    ],
)
def test_token_patterns_are_written_out_for_re2(pattern: str, expected: str) -> None:
    re.compile(pattern)
    assert token_expression(pattern) == expected


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, {}),
        ({"ngram_range": (1, 2), "max_features": 20}, {"tokenexp": token_expression(r"(?u)\b\w\w+\b")}),
        ({"sublinear_tf": True}, {"tokenexp": token_expression(r"(?u)\b\w\w+\b")}),
    ],
    ids=["token pattern", "n-grams", "logarithm"],
)
def test_skl2onnx_still_needs_the_mend(settings: dict[str, Any], given: dict[str, Any], tmp_path: Path) -> None:
    """When this fails, the mend of that name in from_sklearn_text or from_sklearn_mends can go (skl2onnx 1.20)."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import StringTensorType

    model = make_pipeline(TfidfVectorizer(**settings), LogisticRegression(C=10)).fit(TEXTS, LABELS)
    proto = convert_sklearn(
        model,
        initial_types=[("text", StringTensorType([None, 1]))],
        target_opset=17,
        options={id(model[0]): {"locale": "C.UTF-8", **given}, id(model[1]): {"zipmap": False}},
    )
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    got = open_onnx(tmp_path / "model.onnx")(texts(TEXTS))["probabilities"]
    assert np.abs(got - model.predict_proba(TEXTS)).max() > 1e-3
