"""Which tensors a scikit-learn model takes, and the way between them and what the model itself is given.

text       the model starts with a text vectorizer: one input `text` STRING [1].
features   it was fitted on an array of numbers: one input `features` FP32 [n].
columns    it was fitted on a DataFrame: one input a column, FP32 [1] for numbers and booleans, STRING [1] for all else.

Numbers are FP32 throughout, integers too: a graph compares whole numbers of up to 16,777,216 exactly. NaN is a missing
number; text cannot be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError, nearest
from conch.tensor_spec import Array, TensorSpec
from export.from_sklearn_text import estimators, takes_text
from export.source import Tensors

# Names that the outputs have, ours or skl2onnx's.
_TAKEN = ("label", "score", "scores", "probabilities", "logits", "prediction")


@dataclass(frozen=True)
class Column:
    """One column of the sample: its tensor's name, its own, its tensor's type, and its own where it holds numbers."""

    tensor: str
    name: str
    datatype: str
    dtype: np.dtype[Any] | None = None


@dataclass(frozen=True)
class Columns:
    """What goes into a model; ``form`` is "text", "features" or "columns".

    ``as_frame`` says whether the model wants the columns' names, or was fitted on an array.
    """

    form: str
    columns: tuple[Column, ...]
    as_frame: bool = True

    def specs(self) -> tuple[TensorSpec, ...]:
        """The model's input tensors, without the batch dimension."""
        if self.form == "features":
            return (TensorSpec("features", "FP32", (len(self.columns),)),)
        return tuple(TensorSpec(c.tensor, c.datatype, (1,)) for c in self.columns)

    def tensors(self, frame: Any) -> dict[str, Array]:
        """The rows of a DataFrame as tensors: [rows, 1] each, or [rows, n]."""
        if self.form == "features":
            return {"features": frame[[c.name for c in self.columns]].to_numpy(dtype=np.float32)}
        return {c.tensor: _tensor(frame[c.name], c) for c in self.columns}

    def rows(self, tensors: Tensors) -> Any:
        """Tensors as the model itself takes them: a list of texts, an array, or a DataFrame."""
        if self.form == "features":
            return tensors["features"].astype(np.float64)
        if self.form == "text":
            return _texts(tensors[self.columns[0].tensor])
        import pandas as pd

        series = {c.name: pd.Series(_values(tensors[c.tensor], c), dtype=c.dtype or object) for c in self.columns}
        frame = pd.DataFrame(series)
        return frame if self.as_frame else frame.to_numpy()


def choose_columns(model: Any, frame: Any, where: object) -> Columns:
    """The columns of a sample that a fitted model takes, in its order. Raises: ExportError, with both lists."""
    present = [str(name) for name in frame.columns]
    if takes_text(model):
        return Columns("text", (Column("text", _text_column(frame, where), "BYTES"),))
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        used = _used(model, [str(n) for n in names])
        _check_present(used, present, where)
        return Columns("columns", _columns(frame, used))
    count = getattr(model, "n_features_in_", len(present))
    numbers = [name for name in present if _is_number(frame[name])]
    if len(numbers) == count:
        return Columns("features", tuple(Column(n, n, "FP32", frame[n].dtype) for n in numbers), as_frame=False)
    if len(present) == count:
        return Columns("columns", _columns(frame, present), as_frame=False)
    raise ExportError(
        "the sample does not have the model's columns",
        where=where,
        got=f"{len(numbers)} columns of numbers: {', '.join(numbers) or 'none'}"
        + (f"; and of text: {', '.join(sorted(set(present) - set(numbers)))}" if len(numbers) < len(present) else ""),
        expected=f"{count} columns, in the order in which the model was trained",
        fix="leave out of the sample what the model was not trained on (the target, row numbers)",
    )


def read_sample(path: Path, model: Any) -> Any:
    """A CSV file with a header as a DataFrame; columns that the model knows as text are read as text.

    A column of digits (a postal code) looks like numbers to a reader; the model's categories tell. Raises: ExportError.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path)
        digits = [n for n in _known_as_text(model) if n in frame.columns and _is_number(frame[n])]
        if digits:
            frame = pd.read_csv(path, dtype=dict.fromkeys(digits, str))
    except FileNotFoundError as error:
        raise ExportError("there is no sample at that path", where=path, fix="give a CSV file with --sample") from error
    except (OSError, ValueError) as error:  # pandas' EmptyDataError and ParserError, and UnicodeDecodeError
        raise ExportError(
            "the sample is no CSV file with a header",
            where=path,
            got=str(error).strip() or type(error).__name__,
            expected="UTF-8 text, a first line with the columns' names, then rows",
        ) from error
    if frame.empty:
        raise ExportError(
            "the sample has no rows",
            where=path,
            got=f"a header alone: {', '.join(map(str, frame.columns))}",
            expected="some real rows: the served model is compared with the source on them",
        )
    return frame


def drop_missing_text(frame: Any, columns: Columns) -> Any:
    """The rows that have a value in every column of text: a STRING tensor has no way to leave one out."""
    texts = [c.name for c in columns.columns if c.datatype == "BYTES"]
    return frame.dropna(subset=texts) if texts else frame


def _used(model: Any, names: list[str]) -> list[str]:
    """The columns that a model reads of those it was fitted on: a ColumnTransformer that comes first may drop some."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    model = getattr(model, "best_estimator_", model)
    first = model.steps[0][1] if isinstance(model, Pipeline) else model
    if not isinstance(first, ColumnTransformer):
        return names
    chosen: set[str] = set()
    for _, transformer, columns in first.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        listed = [columns] if isinstance(columns, str) else columns
        if not isinstance(listed, list) or not all(isinstance(c, str) for c in listed):
            # Chosen by position, mask or slice: positions hold only while every column is there.
            return names
        chosen.update(listed)
    return [name for name in names if name in chosen]


def _columns(frame: Any, names: list[str]) -> tuple[Column, ...]:
    found: list[Column] = []
    for name in names:
        tensor = re.sub(r"[^\w.-]+", "_", name)
        tensor = f"{tensor}_in" if tensor in _TAKEN else tensor
        if tensor in [column.tensor for column in found]:
            raise ExportError("two columns come to the same tensor name", got=name, expected=f"not {tensor} again")
        number = _is_number(frame[name])
        found.append(Column(tensor, name, "FP32" if number else "BYTES", frame[name].dtype if number else None))
    return tuple(found)


def _check_present(names: list[str], present: list[str], where: object) -> None:
    missing = [name for name in names if name not in present]
    if not missing:
        return
    close = {name: nearest(name, present) for name in missing}
    hints = [f"{near} for {name}" for name, near in close.items() if near]
    raise ExportError(
        f"the sample lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
        where=where,
        got=", ".join(present),
        expected=", ".join(names),
        fix=f"did you mean {' and '.join(hints)}?" if hints else "name columns as those that the model was trained on",
    )


def _text_column(frame: Any, where: object) -> str:
    """The column of texts: the one named so, or the only one that is not numbers. Raises: ExportError."""
    texts = [str(name) for name in frame.columns if not _is_number(frame[name])]
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    raise ExportError(
        "the model reads texts, and the sample does not tell which column they are in",
        where=where,
        got=", ".join(map(str, frame.columns)),
        expected="a column named text, or only one that is not numbers",
        fix="rename the column of texts to text",
    )


def _known_as_text(model: Any) -> set[str]:
    """Columns whose categories, or whose place before a vectorizer, say that they are text."""
    from sklearn.compose import ColumnTransformer

    found: set[str] = set()
    for _, estimator in estimators(model):
        found |= _text_categories(estimator, getattr(estimator, "feature_names_in_", ()))
        if not isinstance(estimator, ColumnTransformer) or not hasattr(estimator, "transformers_"):
            continue
        for _, transformer, names in estimator.transformers_:
            if isinstance(names, str) and takes_text(transformer):
                found.add(names)
            elif isinstance(names, list):
                for _, inner in estimators(transformer):
                    found |= _text_categories(inner, names)
    return found


def _text_categories(estimator: Any, names: Any) -> set[str]:
    categories = getattr(estimator, "categories_", ())
    if not isinstance(categories, list | tuple) or len(categories) != len(names):
        return set()
    pairs = zip(names, categories, strict=True)
    return {str(name) for name, values in pairs if any(isinstance(v, str) for v in values)}


def _is_number(series: Any) -> bool:
    return isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf"


def _tensor(series: Any, column: Column) -> Array:
    if column.datatype == "FP32":
        numbers: Array = series.to_numpy(dtype=np.float32).reshape(-1, 1)
        return numbers
    return np.array([str(value) for value in series], dtype=object).reshape(-1, 1)


def _values(array: Array, column: Column) -> Any:
    """A tensor [rows, 1] as a column of its own type: what FP32 made of a number is what the model shall see."""
    if column.datatype == "BYTES":
        return _texts(array)
    return array[:, 0].astype(np.float64).astype(column.dtype or np.float64)


def _texts(array: Array) -> list[str]:
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in array[:, 0].tolist()]


def joined_datatype(columns: Columns) -> str | None:
    """The one type that all columns have, or None where numbers and text are mixed."""
    kinds: Mapping[str, None] = dict.fromkeys(c.datatype for c in columns.columns)
    return next(iter(kinds)) if len(kinds) == 1 else None
