"""Which tensors a model takes: from its own memory of columns and from the sample's header and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from conch.errors import ExportError
from export import from_sklearn
from export.from_sklearn_columns import choose_columns, read_sample
from export.options import ExportOptions
from export.run_file import open_onnx

OPTIONS = ExportOptions(name="m", max_batch_size=16)

ROWS = 80
CHANCE = np.random.default_rng(0)
CUSTOMERS = pd.DataFrame(
    {
        "age": CHANCE.integers(18, 80, ROWS),
        "fare": np.round(CHANCE.normal(30, 10, ROWS), 2),
        "city": CHANCE.choice(["Seoul", "부산", "São Paulo"], ROWS),
        "zip": CHANCE.choice(["01234", "99999"], ROWS),
        "vip": CHANCE.random(ROWS) > 0.5,
        "class": CHANCE.integers(1, 4, ROWS),
    }
)
LEAVES = np.where((CUSTOMERS.age > 40) ^ (CUSTOMERS.city == "Seoul"), "yes", "no")


def mixed() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
            ("places", OneHotEncoder(handle_unknown="ignore"), ["city", "zip"]),
            ("class", OneHotEncoder(), ["class"]),
            ("rest", "passthrough", ["vip"]),
        ]
    )


def described(model: Any, frame: Any) -> list[str]:
    return [spec.describe(batched=True) for spec in choose_columns(model, frame, "here").specs()]


MODELS = {
    "linear": lambda: make_pipeline(mixed(), LogisticRegression()),
    "forest": lambda: make_pipeline(mixed(), RandomForestClassifier(10, random_state=0)),
    "boosting": lambda: make_pipeline(mixed(), GradientBoostingClassifier(n_estimators=5)),
    "ordinals": lambda: make_pipeline(
        ColumnTransformer([("o", OrdinalEncoder(), ["city", "zip"]), ("n", "passthrough", ["age"])]),
        DecisionTreeClassifier(),
    ),
    "selected by type": lambda: make_pipeline(
        ColumnTransformer(
            [("o", OneHotEncoder(), make_column_selector(dtype_include=[object, "string"]))], remainder="passthrough"
        ),
        DecisionTreeClassifier(),
    ),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_columns_of_numbers_and_text_give_the_models_answers(make: Any, tmp_path: Path) -> None:
    model = make().fit(CUSTOMERS, LEAVES)
    source = from_sklearn.source_of(model, CUSTOMERS, OPTIONS)
    source.write(tmp_path / "model.onnx", OPTIONS)
    run = open_onnx(tmp_path / "model.onnx")
    got = np.concatenate([run(sample)["scores"] for sample in source.samples])
    due = model.predict_proba(CUSTOMERS.astype({"fare": np.float32}))
    np.testing.assert_allclose(got, due, atol=1e-5)


def test_one_input_a_column_strings_where_it_is_text_and_none_for_what_is_dropped() -> None:
    model = make_pipeline(mixed(), LogisticRegression()).fit(CUSTOMERS.assign(note="x"), LEAVES)
    assert described(model, CUSTOMERS.assign(target=LEAVES)) == [
        "age FP32 [batch, 1]",
        "fare FP32 [batch, 1]",
        "city BYTES [batch, 1]",
        "zip BYTES [batch, 1]",
        "vip FP32 [batch, 1]",
        "class FP32 [batch, 1]",
    ]


def test_an_array_of_numbers_is_one_input_whatever_text_lies_beside_it() -> None:
    model = LinearRegression().fit(CUSTOMERS[["age", "fare"]].to_numpy(), CUSTOMERS.vip)
    assert described(model, CUSTOMERS[["age", "fare", "city"]]) == ["features FP32 [batch, 2]"]


def test_a_text_pipeline_takes_text_whatever_its_column_is_called() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(CUSTOMERS.city, LEAVES)
    assert described(model, pd.DataFrame({"message": CUSTOMERS.city, "age": CUSTOMERS.age})) == [
        "text BYTES [batch, 1]"
    ]
    with pytest.raises(ExportError, match="which column"):
        described(model, pd.DataFrame({"a": CUSTOMERS.city, "b": CUSTOMERS.zip}))


def test_names_that_a_request_cannot_carry_are_changed_and_the_answers_stay(tmp_path: Path) -> None:
    odd = pd.DataFrame({"monthly charges ($)": CUSTOMERS.fare, "score": CUSTOMERS.age, "나이": CUSTOMERS.age})
    model = make_pipeline(ColumnTransformer([("n", StandardScaler(), list(odd))]), LogisticRegression()).fit(
        odd, LEAVES
    )
    source = from_sklearn.source_of(model, odd, OPTIONS)
    assert [spec.name for spec in source.signature.inputs] == ["monthly_charges_", "score_in", "나이"]
    source.write(tmp_path / "model.onnx", OPTIONS)
    got = open_onnx(tmp_path / "model.onnx")(source.samples[0])["scores"]
    np.testing.assert_allclose(got, model.predict_proba(odd[:16]), atol=1e-5)


def test_a_missing_column_is_named_with_the_nearest_and_both_lists() -> None:
    model = make_pipeline(mixed(), LogisticRegression()).fit(CUSTOMERS, LEAVES)
    with pytest.raises(ExportError) as raised:
        described(model, CUSTOMERS.rename(columns={"city": "cities", "fare": "price"}))
    message = str(raised.value)
    assert "lacks the columns fare, city" in message
    assert "age, price, cities, zip, vip, class" in message
    assert "age, fare, city, zip, vip, class" in message
    assert "did you mean cities for city?" in message


def test_a_wrong_number_of_columns_shows_both() -> None:
    model = LinearRegression().fit(CUSTOMERS[["age", "fare"]].to_numpy(), CUSTOMERS.vip)
    with pytest.raises(ExportError) as raised:
        described(model, CUSTOMERS[["age", "fare", "class", "city"]])
    assert "3 columns of numbers: age, fare, class; and of text: city" in str(raised.value)
    assert "2 columns" in str(raised.value)


def test_two_columns_that_come_to_one_name_are_refused() -> None:
    twins = pd.DataFrame({"a b": CUSTOMERS.age, "a  b": CUSTOMERS.fare})
    model = LinearRegression().fit(twins, CUSTOMERS.vip)
    with pytest.raises(ExportError, match="same tensor name"):
        described(model, twins)


def test_digits_are_text_where_the_model_knows_them_as_text(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    CUSTOMERS.to_csv(path, index=False)
    model = make_pipeline(mixed(), LogisticRegression()).fit(CUSTOMERS, LEAVES)
    frame = read_sample(path, model)
    assert frame.zip.tolist() == CUSTOMERS.zip.tolist()
    assert "zip BYTES [batch, 1]" in described(model, frame)
    assert read_sample(path, LinearRegression()).zip[0] in (1234, 99999)


def test_rows_without_text_are_left_out_and_counted() -> None:
    model = make_pipeline(mixed(), LogisticRegression()).fit(CUSTOMERS, LEAVES)
    gaps = CUSTOMERS.copy()
    gaps.loc[[3, 5], "city"] = None
    gaps.loc[7, "fare"] = np.nan
    source = from_sklearn.source_of(model, gaps, OPTIONS)
    assert "2 rows of the sample lack a text, and were left out" in source.notes
    assert sum(len(sample["age"]) for sample in source.samples) == ROWS - 2
    gaps["city"] = None
    with pytest.raises(ExportError, match="no row of the sample"):
        from_sklearn.source_of(model, gaps.astype({"city": object}), OPTIONS)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no CSV file"),
        (b"age,fare\n", "no rows"),
        (b"\xff\xfe\x00a", "no CSV file"),
        (b'a,b\n1,2\n"3,4,5\n', "no CSV file"),
    ],
    ids=["empty", "header alone", "not text", "a quote left open"],
)
def test_a_sample_that_is_none_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=what):
        read_sample(path, LinearRegression())


def test_rows_that_the_model_does_not_take_are_shown_with_its_complaint() -> None:
    model = LinearRegression().fit(CUSTOMERS[["age", "fare"]], CUSTOMERS.vip)
    with pytest.raises(ExportError) as raised:
        from_sklearn.source_of(model, CUSTOMERS.assign(fare=np.nan), OPTIONS)
    assert "does not answer the sample's rows" in str(raised.value)
    assert "NaN" in str(raised.value)
