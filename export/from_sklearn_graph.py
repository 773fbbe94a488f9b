"""A fitted scikit-learn model as an ONNX graph with our tensors' names, by skl2onnx.

skl2onnx decides what the graph computes; here its edges are made ours: the columns go in under their own names, and the
answer comes out (see `export.from_sklearn_answer`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from conch.errors import ExportError
from conch.releases import release
from export.from_sklearn_answer import MIN_OPSET, Answering, add_answer
from export.from_sklearn_columns import Columns, joined_datatype
from export.from_sklearn_file import OTHER_LIBRARIES, OTHER_LIBRARY_FIX
from export.from_sklearn_mends import mend_scalers, mend_sublinear_tf
from export.from_sklearn_text import estimators, prepare, vectorizers
from export.options import ExportOptions
from export.quiet import quiet

# The operators for trees and linear models as of ONNX 1.13; ONNX Runtime reads version 5 only since 1.20.
ML_OPSET = 3

# Named so that no column's name meets them.
_JOINED = "conch_joined_columns"
_LAST = "conch_numbers"

# The options of the last step, most wanted first: not every converter knows both.
_LAST_STEP_OPTIONS: tuple[dict[str, bool], ...] = (
    {"zipmap": False, "raw_scores": True},
    {"raw_scores": True},
    {"zipmap": False},
    {},
)


def convert(model: Any, columns: Columns, answering: Answering, options: ExportOptions) -> Any:
    """The ModelProto of a model, with the inputs of ``columns`` and the outputs of ``answering``.

    Raises: ExportError, naming the step.
    """
    ready = _copy_for_conversion(model)
    step_options: dict[int, Any] = {id(v): prepare(v, place) for place, v in vectorizers(ready)}
    step_options |= {id(s): {"div": "div_cast"} for s in _scalers(ready)}
    proto = _run_skl2onnx(ready, columns, answering.kind, step_options, options)
    graph = proto.graph
    mend_scalers(graph, _scalers(ready))
    if any(getattr(e, "sublinear_tf", False) for _, e in estimators(ready)):
        mend_sublinear_tf(graph)
    last = graph.output[0 if answering.kind == "number" else len(graph.output) - 1].name
    _rename_values(graph, {last: _LAST})
    del graph.output[:]
    _name_inputs(graph, columns)
    # Inside, a value may have the name that an output is to get.
    _rename_values(graph, {spec.name: f"{spec.name}_inside" for spec in answering.outputs})
    add_answer(graph, _LAST, answering)
    _prune(graph)
    _set_versions(proto, options)
    return proto


def _copy_for_conversion(model: Any) -> Any:
    """A copy that may be changed, with searches replaced by what they found."""
    from sklearn.pipeline import Pipeline

    ready = copy.deepcopy(model)
    ready = getattr(ready, "best_estimator_", ready)
    if isinstance(ready, Pipeline):
        ready.steps = [(name, getattr(step, "best_estimator_", step)) for name, step in ready.steps]
    for _, estimator in estimators(ready):
        # Of VotingClassifier: predict ignores it, and its converter refuses True (skl2onnx 1.20).
        if hasattr(estimator, "flatten_transform"):
            estimator.flatten_transform = False
    return ready


def _scalers(model: Any) -> Iterator[Any]:
    """The fitted scalers that skl2onnx can let compute in doubles.

    scikit-learn scales in doubles, and a tree after it compares what comes out: in floats, a value that was half-way
    between two would take the other branch.
    """
    from sklearn.preprocessing import MaxAbsScaler, RobustScaler, StandardScaler

    for _, estimator in estimators(model):
        if isinstance(estimator, MaxAbsScaler | RobustScaler | StandardScaler) and hasattr(estimator, "scale_"):
            yield estimator


def last_step(model: Any) -> Any:
    """The estimator that gives the answer: the end of pipelines, the best of searches."""
    from sklearn.pipeline import Pipeline

    while True:
        if isinstance(model, Pipeline):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return model


def _run_skl2onnx(
    model: Any, columns: Columns, kind: str, step_options: Mapping[int, Any], options: ExportOptions
) -> Any:
    from skl2onnx import __max_supported_opset__, convert_sklearn

    limit = release(options.target).max_opset
    if options.opset is not None and not MIN_OPSET <= options.opset <= __max_supported_opset__:
        raise ExportError(
            "scikit-learn models are not written in that opset",
            got=options.opset,
            expected=f"{MIN_OPSET} to {__max_supported_opset__}",
        )
    opset = options.opset or min(limit, __max_supported_opset__)
    last = last_step(model)
    choices = {"decision": _LAST_STEP_OPTIONS, "probabilities": _LAST_STEP_OPTIONS[2:], "number": ({},)}[kind]
    for last_options in choices:
        try:
            with quiet():
                return convert_sklearn(
                    model,
                    initial_types=_initial_types(model, columns),
                    target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
                    options={**step_options, **({id(last): last_options} if last_options else {})},
                )
        except NameError as error:
            # How skl2onnx says that a converter lacks an option.
            if last_options == choices[-1] or "Option" not in str(error):
                raise _conversion_error(model, error) from error
        except Exception as error:  # converters raise whatever comes
            raise _conversion_error(model, error) from error
    raise AssertionError("the last choice returns or raises")


def _initial_types(model: Any, columns: Columns) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = {"FP32": FloatTensorType, "BYTES": StringTensorType}
    if columns.form == "features":
        return [("features", FloatTensorType([None, len(columns.columns)]))]
    joined = _joins(model, columns)
    if joined:
        return [(_JOINED, types[joined]([None, len(columns.columns)]))]
    return [(c.name, types[c.datatype]([None, 1])) for c in columns.columns]


def _joins(model: Any, columns: Columns) -> str | None:
    """The type of the one tensor that columns are joined to before the model, or None where it takes them one by one.

    Most converters read their first input alone, without a word on the others (skl2onnx 1.20).
    """
    from sklearn.compose import ColumnTransformer

    if columns.form != "columns" or any(isinstance(e, ColumnTransformer) for _, e in estimators(model)):
        return None
    return joined_datatype(columns)


def _conversion_error(model: Any, error: Exception) -> ExportError:
    """Say which step has no conversion, or why it failed."""
    text = " ".join(str(error).split())
    guilty = [(place, e) for place, e in estimators(model) if _names(text, type(e))]
    place, estimator = guilty[-1] if guilty else ("", None)
    library = type(estimator).__module__.partition(".")[0]
    if type(error).__name__ in ("MissingShapeCalculator", "MissingConverter"):
        return ExportError(
            f"{type(estimator).__name__ if guilty else 'a step'} has no conversion to ONNX",
            where=f"step {place}" if place else None,
            got=f"{type(estimator).__module__}.{type(estimator).__name__}" if guilty else text[:200],
            expected="an estimator that skl2onnx converts: https://onnx.ai/sklearn-onnx/supported.html",
            fix=OTHER_LIBRARY_FIX if library in OTHER_LIBRARIES else "replace the step, or serve it as Python code",
        )
    fix = "replace the step, or change its parameters"
    if type(error).__name__.startswith("InvalidInput"):
        fix = "such a step converts only where it takes numbers in one block: put encoders and vectorizers before it"
    return ExportError(
        "the model could not be converted to ONNX",
        where=f"step {place}" if place else None,
        got=f"{type(error).__name__}: {text[:400]}",
        fix=fix,
    )


def _names(text: str, kind: type) -> bool:
    """Whether skl2onnx's complaint is about a class: by its path, its name, or the name that skl2onnx has for it."""
    name = kind.__name__
    return (
        f"{kind.__module__}.{name}'" in text
        or f"'{name}'" in text
        or text.startswith(name)
        or f"Sklearn{name} " in text
    )


def _name_inputs(graph: Any, columns: Columns) -> None:
    """Give the graph's inputs the tensors' names, joined by a Concat where the model takes them as one."""
    from onnx import TensorProto, helper

    specs = columns.specs()
    if len(graph.input) == 1 and graph.input[0].name == _JOINED:
        graph.node.insert(0, helper.make_node("Concat", [s.name for s in specs], [_JOINED], axis=1))
    else:
        # Inside, a value may have the name that an input is to get.
        renamed = {value.name: spec.name for value, spec in zip(graph.input, specs, strict=True)}
        changed = {old: new for old, new in renamed.items() if old != new}
        _rename_values(graph, {new: f"{new}_inside" for new in changed.values()})
        _rename_values(graph, changed)
    types = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING}
    del graph.input[:]
    for spec in specs:
        graph.input.append(helper.make_tensor_value_info(spec.name, types[spec.datatype], ["batch", *spec.dims]))


def _rename_values(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            for position, value in enumerate(values):
                if value in names:
                    values[position] = names[value]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    del graph.value_info[:]


def _prune(graph: Any) -> None:
    """Remove nodes and constants that lead nowhere: the labels that skl2onnx computes are not ours."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(_reads(node))
    unused = [t for t in graph.initializer if t.name not in needed]
    for tensor in unused:
        graph.initializer.remove(tensor)


def _reads(node: Any) -> Iterator[str]:
    """The values that a node reads, those of graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _set_versions(proto: Any, options: ExportOptions) -> None:
    """One entry a domain (skl2onnx 1.20 writes some twice), and an IR that the target reads."""
    from onnx import helper

    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    for node in proto.graph.node:
        versions.setdefault(node.domain, 1)
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    proto.ir_version = min(proto.ir_version, release(options.target).max_ir_version)
