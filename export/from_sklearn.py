"""A fitted scikit-learn model, from a file or from memory, as a Source.

Each is one model and one ONNX file. A regressor's output is `prediction` FP32 [1], a classifier's are `label`, `score`
and `scores`: labels and rules are compiled into the graph (see `export.from_sklearn_answer`), so another version folder
is another behaviour. The scores are predict_proba where the model has it. Where it has a decision function alone (SVC,
LinearSVC, RidgeClassifier, SGDClassifier with hinge loss...) they are its softmax, or its sigmoid for two classes:
right in order, but no probabilities.

The label is the class with the highest score. Estimators whose predict() decides otherwise (SVC(probability=True),
tuned thresholds) differ in some rows; a note says in how many of the sample's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from conch.errors import ExportError
from conch.manifest import sha256
from conch.tensor_spec import Array, ModelSignature
from export.from_sklearn_answer import Answering, answer, read_rules, tolerance
from export.from_sklearn_columns import Columns, choose_columns, drop_missing_text, read_sample
from export.from_sklearn_file import OTHER_LIBRARIES, OTHER_LIBRARY_FIX, load_estimator
from export.from_sklearn_graph import convert, last_step
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source, Tensors

Answer = TypeVar("Answer")

# Rows of the sample that parity looks at; more are thinned out evenly.
MAX_ROWS = 1000


def load(path: Path, sample: Path, options: ExportOptions, *, trust: bool = False) -> Source:
    """A Source from a joblib or pickle file and a CSV file of real rows. Raises: ExportError, UntrustedSource.

    Loading runs the code in the file: ``trust`` says that the user vouches for it, which a file of their own needs not.
    """
    loaded = load_estimator(path, trust=trust)
    frame = read_sample(sample, loaded.estimator)
    if options.samples is not None:
        import pandas as pd

        frame = pd.concat([frame, read_sample(options.samples, loaded.estimator)], ignore_index=True)
    made = source_of(loaded.estimator, frame, options, where=sample)
    provenance = {**made.provenance, "path": str(path), "sha256": sha256(path), "sample": str(sample)}
    return dataclasses.replace(made, provenance=provenance, notes=(*loaded.notes, *made.notes))


def source_of(model: Any, frame: Any, options: ExportOptions, *, where: object = "the sample") -> Source:
    """A Source from a fitted estimator and a DataFrame of real rows. Raises: ExportError."""
    _check(model, options)
    columns = choose_columns(model, frame, where)
    rows = drop_missing_text(frame, columns)
    notes = (
        [f"{len(frame) - len(rows)} rows of the sample lack a text, and were left out"]
        if len(rows) < len(frame)
        else []
    )
    if rows.empty:
        raise ExportError("no row of the sample has a value in every column of text", where=where, got=len(frame))
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(MAX_ROWS, len(rows))).astype(int))]
    tensors = columns.tensors(rows)
    answering = _answering(model)
    if answering.labels and options.rules is not None:
        rules = read_rules(options.rules, answering.labels)
        answering = dataclasses.replace(answering, rules=rules, rules_file=options.rules)
    predicted = _ask(model.predict, columns, tensors)
    if np.ndim(predicted) > 1 and np.shape(predicted)[1] != 1:
        raise _several_answers(np.shape(predicted)[1])
    values = _ask(answering.compute, columns, tensors)
    within = tolerance(answering, values, options.atol)
    if answering.labels:
        notes += _label_notes(answering, model, values, predicted)
    return Source(
        provenance=_provenance(model),
        signature=ModelSignature(columns.specs(), answering.outputs, options.max_batch_size),
        reference=lambda given: _ask(lambda rows: answer(answering, answering.compute(rows), within), columns, given),
        samples=_batches(tensors, options.max_batch_size),
        write=_writer(model, columns, answering),
        tolerances={"fp32": within} if answering.labels else {},
        files=answering.files,
        infer_arguments='--text "..."' if columns.form == "text" else "--csv rows.csv",
        notes=tuple(notes),
    )


def _check(model: Any, options: ExportOptions) -> None:
    """Raise ExportError for what cannot be exported, whatever the sample."""
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    kind = type(last_step(model))
    library = kind.__module__.partition(".")[0]
    if library in OTHER_LIBRARIES:
        raise ExportError(f"{kind.__name__} is {library}'s, not scikit-learn's", fix=OTHER_LIBRARY_FIX)
    if not isinstance(model, BaseEstimator):
        raise ExportError(
            f"a {type(model).__name__} is no scikit-learn estimator", expected="an estimator or a Pipeline"
        )
    if options.format != "onnx" or options.precision != "fp32":
        raise ExportError(
            "scikit-learn models are served as ONNX at full precision",
            got=f"--format {options.format} --precision {options.precision}",
            expected="--format onnx --precision fp32",
            fix="leave these options out: trees and linear models gain nothing from int8",
        )
    if options.max_batch_size < 1:
        raise ExportError(
            "scikit-learn models take rows, so requests have a batch dimension",
            got=f"--max-batch-size {options.max_batch_size}",
            expected="1 or more",
        )
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ExportError("the model is not fitted", got=type(model).__name__, fix="train it, then save it") from error


def _answering(model: Any) -> Answering:
    """How the model answers. Raises: ExportError for what is neither classifier nor regressor, or answers several."""
    from sklearn.base import is_classifier, is_regressor
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    name = type(last_step(model)).__name__
    if is_regressor(model):
        return Answering("number", lambda rows: _column(model.predict(rows)))
    if not is_classifier(model):
        raise ExportError(
            f"{name} is neither a classifier nor a regressor",
            expected="a model whose answer is a class or a number",
            fix="export a pipeline that ends in one",
        )
    labels = _labels(model.classes_)
    # skl2onnx 1.20 converts its probabilities wrongly where there are two classes, and its decision rightly.
    if hasattr(model, "predict_proba") and not isinstance(last_step(model), LinearDiscriminantAnalysis):
        return Answering("probabilities", lambda rows: _floats(model.predict_proba(rows)), labels)
    if hasattr(model, "decision_function") and name != "OneVsRestClassifier":
        return Answering("decision", lambda rows: decision_logits(model, rows, labels), labels)
    raise ExportError(
        f"{name} gives no scores that can be converted",
        got="neither predict_proba nor a decision function that skl2onnx converts",
        fix="wrap it in CalibratedClassifierCV, or choose settings with probabilities (voting='soft')",
    )


def decision_logits(model: Any, rows: Any, labels: tuple[str, ...]) -> Array:
    """The decision function as logits [rows, classes]; for two classes, 0 and the decision. Raises: ExportError."""
    decision = _floats(model.decision_function(rows))
    if decision.ndim == 1:
        return np.stack([np.zeros_like(decision), decision], axis=1)
    if decision.shape[1] != len(labels):
        raise ExportError(
            "the decision function compares pairs of classes",
            got=f"{decision.shape[1]} numbers for {len(labels)} classes",
            fix="train with decision_function_shape='ovr'",
        )
    return decision


def _labels(classes: Any) -> tuple[str, ...]:
    """Class labels as lines of labels.txt. Raises: ExportError."""
    if isinstance(classes, list):
        raise _several_answers(len(classes))
    labels = tuple(str(c) for c in classes)
    wrong = [label for label in labels if not label.strip() or "\n" in label or "\r" in label]
    if wrong or len(set(labels)) < len(labels) or len(labels) < 2:
        raise ExportError(
            "the model's classes cannot be labels",
            got=", ".join(map(repr, labels)),
            expected="two or more, each a line of text of its own",
        )
    return labels


def _several_answers(count: int) -> ExportError:
    return ExportError(
        "the model gives several answers at once",
        got=f"{count} outputs a row",
        expected="one class or one number a row",
        fix="export one model for each of them",
    )


def _ask(function: Callable[[Any], Answer], columns: Columns, tensors: Tensors) -> Answer:
    """The estimator's answer to tensors. Raises: ExportError, with its complaint."""
    try:
        with quiet():
            return function(columns.rows(tensors))
    except ExportError:
        raise
    except Exception as error:  # whatever the user's steps raise
        raise ExportError(
            "the model does not answer the sample's rows",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            expected=", ".join(f"{c.name} ({'number' if c.datatype == 'FP32' else 'text'})" for c in columns.columns),
            fix="give rows like those that the model was trained on",
        ) from error


def _label_notes(answering: Answering, model: Any, values: Array, predicted: Array) -> list[str]:
    """What is worth telling about the labels on the sample."""
    notes = []
    if not hasattr(model, "predict_proba"):
        notes.append("the model has no probabilities: scores come from its decision function, in the right order only")
    best = [answering.labels[i] for i in values.argmax(axis=1)]
    other = sum(label != str(p) for label, p in zip(best, np.ravel(predicted), strict=True))
    if other:
        notes.append(f"label is the class with the highest score; predict() differs in {other} of {len(best)} rows")
    return notes


def _writer(model: Any, columns: Columns, answering: Answering) -> Callable[[Path, ExportOptions], None]:
    def write(path: Path, options: ExportOptions) -> None:
        proto = convert(model, columns, answering, options)
        path.write_bytes(proto.SerializeToString())

    return write


def _batches(tensors: Tensors, size: int) -> list[Mapping[str, Array]]:
    rows = len(next(iter(tensors.values())))
    return [{name: array[at : at + size] for name, array in tensors.items()} for at in range(0, rows, size)]


def _provenance(model: Any) -> dict[str, Any]:
    import onnx
    import skl2onnx
    import sklearn

    names = [type(step).__name__ for _, step in getattr(model, "steps", [])] or [type(model).__name__]
    versions = {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__, "onnx": onnx.__version__}
    return {"kind": "sklearn", "estimator": " > ".join(names), "versions": versions}


def _floats(values: Any) -> Array:
    return np.asarray(values, dtype=np.float32)


def _column(values: Any) -> Array:
    """Predictions [rows] or [rows, 1] as [rows, 1]. Raises: ExportError where there are several a row."""
    array = _floats(values)
    if array.ndim > 1 and array.shape[1] != 1:
        raise _several_answers(array.shape[1])
    return array.reshape(-1, 1)
