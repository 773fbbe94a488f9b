"""Every family of scikit-learn estimators: the ONNX file's numbers are the estimator's own, or export says why not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import (
    calibration,
    discriminant_analysis,
    ensemble,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

from conch.errors import ExportError
from conch.releases import release
from export import check_graph, from_sklearn, parity
from export.options import ExportOptions
from export.source import Source

OPTIONS = ExportOptions(name="m", max_batch_size=16)
ANSWER = [("label", np.dtype(object)), ("score", np.dtype(np.float32)), ("scores", np.dtype(np.float32))]
NAMES = [f"x{i}" for i in range(6)]


@functools.cache
def classes(count: int) -> tuple[Any, Any]:
    """120 rows of six numbers that are whole in FP32 as a DataFrame, and their classes 0, 1..."""
    x, y = make_classification(120, 6, n_informative=4, n_redundant=0, n_classes=count, random_state=0)
    return pd.DataFrame(x.astype(np.float32).astype(float), columns=NAMES), y


@functools.cache
def numbers() -> tuple[Any, Any]:
    """120 rows of six numbers as a DataFrame, and a number for each."""
    x, y = make_regression(120, 6, noise=5, random_state=0)
    return pd.DataFrame(x.astype(np.float32).astype(float), columns=NAMES), y


def features(rows: Any) -> dict[str, Any]:
    """Rows as the tensor of a model that was fitted on an array."""
    return {"features": np.asarray(rows, dtype=np.float32)}


def run(source: Source, folder: Path, options: ExportOptions = OPTIONS) -> Callable[[Any], Any]:
    """Write the file, check it as an export would, and return what runs it."""
    file = folder / "model.onnx"
    source.write(file, options)
    checked = check_graph.check(file, source, release(options.target))
    return checked.run


def tolerated(source: Source) -> dict[str, float]:
    """The tolerance that an export would compare with."""
    return {"atol": source.tolerances["fp32"]}


PROBABILISTIC = {
    "logistic regression": lambda: linear_model.LogisticRegression(),
    "logistic regression, searched": lambda: GridSearchCV(linear_model.LogisticRegression(), {"C": [1.0, 2.0]}, cv=2),
    "sgd, log loss": lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
    "random forest": lambda: ensemble.RandomForestClassifier(10, random_state=0),
    "extra trees": lambda: ensemble.ExtraTreesClassifier(10, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=8),
    "histogram boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=8),
    "ada boost": lambda: ensemble.AdaBoostClassifier(n_estimators=8),
    "bagging": lambda: ensemble.BaggingClassifier(n_estimators=5, random_state=0),
    "voting": lambda: ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())], voting="soft"
    ),
    "stacking": lambda: ensemble.StackingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())], cv=2
    ),
    "decision tree": lambda: tree.DecisionTreeClassifier(),
    "nearest neighbours": lambda: neighbors.KNeighborsClassifier(),
    "perceptron of layers": lambda: neural_network.MLPClassifier(hidden_layer_sizes=(8,), max_iter=20, tol=10.0),
    "naive Bayes": lambda: naive_bayes.GaussianNB(),
    "Bernoulli naive Bayes": lambda: naive_bayes.BernoulliNB(),
    "calibrated": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
    "quadratic discriminants": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(),
    "one against the rest": lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "scaled": lambda: make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
    "scaled forest": lambda: make_pipeline(RobustScaler(), ensemble.RandomForestClassifier(10, random_state=0)),
    "components": lambda: make_pipeline(PCA(3), linear_model.LogisticRegression()),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(), MinMaxScaler(), linear_model.LogisticRegression()),
}

DECIDING = {
    "svc": lambda: svm.SVC(),
    "nu svc": lambda: svm.NuSVC(),
    "linear svc": lambda: svm.LinearSVC(),
    "ridge": lambda: linear_model.RidgeClassifier(),
    "sgd, hinge": lambda: linear_model.SGDClassifier(random_state=0),
    "perceptron": lambda: linear_model.Perceptron(),
    "one against one": lambda: multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
    "selected": lambda: make_pipeline(SelectKBest(k=3), svm.SVC()),
}

REGRESSORS = {
    "linear": lambda: linear_model.LinearRegression(),
    "ridge": lambda: linear_model.Ridge(),
    "lasso": lambda: linear_model.Lasso(),
    "bayesian ridge": lambda: linear_model.BayesianRidge(),
    "huber": lambda: linear_model.HuberRegressor(),
    "sgd": lambda: linear_model.SGDRegressor(random_state=0),
    "svr": lambda: svm.SVR(C=10),
    "random forest": lambda: ensemble.RandomForestRegressor(10, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=8),
    "histogram boosting": lambda: ensemble.HistGradientBoostingRegressor(max_iter=8),
    "nearest neighbours": lambda: neighbors.KNeighborsRegressor(),
    "perceptron of layers": lambda: neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, tol=10.0),
    "scaled forest": lambda: make_pipeline(StandardScaler(), ensemble.RandomForestRegressor(10, random_state=0)),
    "searched": lambda: GridSearchCV(linear_model.Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("make", PROBABILISTIC.values(), ids=PROBABILISTIC)
def test_probabilities_are_the_estimators(make: Callable[[], Any], count: int, tmp_path: Path) -> None:
    frame, y = classes(count)
    model = make().fit(frame.to_numpy(), y)
    got = run(from_sklearn.source_of(model, frame, OPTIONS), tmp_path)(features(frame))
    due = model.predict_proba(frame.to_numpy())
    np.testing.assert_allclose(got["scores"], due, atol=2e-5)
    np.testing.assert_array_equal(got["score"][:, 0], got["scores"].max(axis=1))
    assert got["label"][:, 0].tolist() == [str(c) for c in got["scores"].argmax(axis=1)]
    assert [(name, array.dtype) for name, array in got.items()] == ANSWER


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("make", DECIDING.values(), ids=DECIDING)
def test_a_decision_function_becomes_its_softmax_with_the_same_answer(
    make: Callable[[], Any], count: int, tmp_path: Path
) -> None:
    frame, y = classes(count)
    model = make().fit(frame.to_numpy(), y)
    source = from_sklearn.source_of(model, frame, OPTIONS)
    got = run(source, tmp_path)(features(frame))
    decision = model.decision_function(frame.to_numpy())
    logits = decision if count == 3 else np.stack([np.zeros(len(decision)), decision], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(got["scores"], powers / powers.sum(axis=1, keepdims=True), atol=5e-4)
    assert got["label"][:, 0].tolist() == [str(p) for p in model.predict(frame.to_numpy())]
    assert [(name, array.dtype) for name, array in got.items()] == ANSWER
    assert any("no probabilities" in note for note in source.notes)


def test_decisions_of_any_size_are_held_to_what_full_precision_leaves_of_them(tmp_path: Path) -> None:
    # Large numbers that nobody scaled: decisions of a million, whose last digits full precision does not keep.
    frame, y = classes(3)
    large = frame * 1000
    source = from_sklearn.source_of(linear_model.SGDClassifier(random_state=0).fit(large.to_numpy(), y), large, OPTIONS)
    rows = parity.compare(
        run(source, tmp_path), source.reference, source.samples, source.signature, **tolerated(source)
    )
    assert [row.output for row in rows] == ["label", "score", "scores"]
    assert source.tolerances == {"fp32": 0.01}
    small = from_sklearn.source_of(linear_model.RidgeClassifier().fit(frame.to_numpy(), y), frame, OPTIONS)
    assert 1e-4 <= small.tolerances["fp32"] < 1e-3


@pytest.mark.parametrize("count", [2, 3])
def test_linear_discriminants_give_their_probabilities_through_the_softmax(count: int, tmp_path: Path) -> None:
    frame, y = classes(count)
    model = discriminant_analysis.LinearDiscriminantAnalysis().fit(frame.to_numpy(), y)
    source = from_sklearn.source_of(model, frame, OPTIONS)
    got = run(source, tmp_path)(features(frame))
    np.testing.assert_allclose(got["scores"], model.predict_proba(frame.to_numpy()), atol=1e-5)
    assert source.notes == ()


@pytest.mark.parametrize("form", ["array", "frame"])
@pytest.mark.parametrize("make", REGRESSORS.values(), ids=REGRESSORS)
def test_predictions_are_the_estimators(make: Callable[[], Any], form: str, tmp_path: Path) -> None:
    frame, y = numbers()
    rows = frame if form == "frame" else frame.to_numpy()
    model = make().fit(rows, y)
    source = from_sklearn.source_of(model, frame, OPTIONS)
    assert source.pipeline is None
    feeds = features(rows) if form == "array" else {n: frame[[n]].to_numpy(np.float32) for n in NAMES}
    got = run(source, tmp_path)(feeds)["prediction"]
    assert got.shape == (120, 1)
    np.testing.assert_allclose(got[:, 0], model.predict(rows), atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize(
    ("classes_of", "labels"),
    [
        (np.array([3, 7]), b"3\n7\n"),
        (np.array(["no", "yes"]), b"no\nyes\n"),
        (np.array(["아니오", "예"]), "아니오\n예\n".encode()),
        (np.array([False, True]), b"False\nTrue\n"),
    ],
    ids=["int", "str", "korean", "bool"],
)
def test_labels_are_text_and_recorded_beside_the_model(classes_of: Any, labels: bytes, tmp_path: Path) -> None:
    frame, y = classes(2)
    model = linear_model.LogisticRegression().fit(frame.to_numpy(), classes_of[y])
    source = from_sklearn.source_of(model, frame, OPTIONS)
    assert source.files == {"labels.txt": labels}
    assert source.pipeline is None
    got = run(source, tmp_path)(features(frame))["label"]
    assert got[:, 0].tolist() == [str(p) for p in model.predict(frame.to_numpy())]


def test_a_label_that_predict_gives_otherwise_is_told() -> None:
    frame, y = classes(2)

    class Contrary(linear_model.LogisticRegression):
        def predict(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
            return 1 - super().predict(X)

    notes = from_sklearn.source_of(Contrary().fit(frame.to_numpy(), y), frame, OPTIONS).notes
    assert notes == ("label is the class with the highest score; predict() differs in 120 of 120 rows",)


def refuse(model: Any, options: ExportOptions = OPTIONS, folder: Path | None = None) -> str:
    """The message with which a model is refused, at loading or, with a folder, when its file is written."""
    frame, _ = classes(2)
    with pytest.raises(ExportError) as raised:
        from_sklearn.source_of(model, frame, options).write((folder or Path()) / "model.onnx", options)
    return str(raised.value)


def test_an_unfitted_model_is_refused() -> None:
    assert "not fitted" in refuse(linear_model.Ridge())


def test_what_gives_no_class_and_no_number_is_refused() -> None:
    frame, _ = classes(2)
    assert "KMeans is neither a classifier nor a regressor" in refuse(KMeans(2, n_init=1).fit(frame.to_numpy()))


def test_several_answers_are_refused() -> None:
    frame, y = classes(2)
    both = np.stack([y, y], axis=1)
    x = frame.to_numpy()
    assert "several answers" in refuse(MultiOutputRegressor(linear_model.Ridge()).fit(x, both))
    assert "several answers" in refuse(MultiOutputClassifier(linear_model.LogisticRegression()).fit(x, both))


def test_votes_without_probabilities_are_refused_with_the_way_out() -> None:
    frame, y = classes(2)
    model = ensemble.VotingClassifier([("a", tree.DecisionTreeClassifier())]).fit(frame.to_numpy(), y)
    assert "voting='soft'" in refuse(model)


def test_an_estimator_without_conversion_is_named_with_its_step(tmp_path: Path) -> None:
    frame, y = classes(2)
    model = TransformedTargetRegressor(linear_model.Ridge()).fit(frame.to_numpy(), y)
    assert "TransformedTargetRegressor has no conversion to ONNX" in refuse(model, folder=tmp_path)
    piped = make_pipeline(FunctionTransformer(np.abs), linear_model.Ridge()).fit(frame.to_numpy(), y)
    message = refuse(piped, folder=tmp_path)
    assert "could not be converted" in message
    assert "step functiontransformer" in message


@pytest.mark.parametrize("changed", [{"precision": "int8"}, {"format": "torchscript"}, {"max_batch_size": 0}])
def test_options_that_make_no_sense_are_refused(changed: dict[str, Any]) -> None:
    frame, y = classes(2)
    model = linear_model.LogisticRegression().fit(frame.to_numpy(), y)
    assert str(next(iter(changed.values()))) in refuse(model, ExportOptions(name="m", **changed))


def test_the_opset_is_the_one_asked_for_and_the_targets_by_default(tmp_path: Path) -> None:
    frame, y = classes(2)
    model = ensemble.RandomForestClassifier(5).fit(frame.to_numpy(), y)
    written = {}
    for opset in (None, 17):
        options = ExportOptions(name="m", opset=opset)
        source = from_sklearn.source_of(model, frame, options)
        run(source, tmp_path, options)
        proto = check_graph.read_onnx(tmp_path / "model.onnx")
        domains = [entry.domain for entry in proto.opset_import]
        assert len(domains) == len(set(domains))
        written[opset] = check_graph.default_opset(proto)
    assert written == {None: 21, 17: 17}
    assert "not written in that opset" in refuse(model, ExportOptions(name="m", opset=99), tmp_path)
    assert "not written in that opset" in refuse(model, ExportOptions(name="m", opset=12), tmp_path)


def test_nothing_is_left_of_the_labels_that_skl2onnx_computes(tmp_path: Path) -> None:
    frame, y = classes(2)
    model = neighbors.KNeighborsClassifier().fit(frame.to_numpy(), np.array(["no", "yes"])[y])
    run(from_sklearn.source_of(model, frame, OPTIONS), tmp_path)
    graph = check_graph.read_onnx(tmp_path / "model.onnx").graph
    read = {name for node in graph.node for name in node.input} | {name for name, _ in ANSWER}
    assert all(read.intersection(node.output) for node in graph.node)
    assert all(tensor.name in read for tensor in graph.initializer)


def test_a_tree_after_a_scaler_takes_the_same_branches(tmp_path: Path) -> None:
    # Whole numbers lie half-way between two others: thresholds are exactly on values, where rounding decides.
    chance = np.random.default_rng(0)
    ages = pd.DataFrame({"age": chance.integers(18, 80, 200), "years": chance.integers(0, 40, 200)})
    y = chance.random(200) > 0.5
    model = make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(100, random_state=0)).fit(ages, y)
    source = from_sklearn.source_of(model, ages, OPTIONS)
    feeds = {name: ages[[name]].to_numpy(np.float32) for name in ages}
    got = run(source, tmp_path)(feeds)["scores"]
    np.testing.assert_allclose(got, model.predict_proba(ages), atol=1e-5)


def test_skl2onnx_still_rounds_the_offsets_of_scalers(tmp_path: Path) -> None:
    """When this fails, the mend of scalers in from_sklearn_mends can go (skl2onnx 1.20)."""
    from onnx import TensorProto, numpy_helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = StandardScaler().fit(np.array([[0.1], [0.2], [0.4]]))
    proto = convert_sklearn(
        model, initial_types=[("x", FloatTensorType([None, 1]))], options={id(model): {"div": "div_cast"}}
    )
    doubles = [t for t in proto.graph.initializer if t.data_type == TensorProto.DOUBLE]
    assert not any(numpy_helper.to_array(t).ravel()[0] == model.mean_[0] for t in doubles)
