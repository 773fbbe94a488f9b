"""JSON schemas of a model's rows and answers, from its signature. Pure.

They say what gateway/rest/values.py takes: one property an input, in its type, range and lengths. Of outputs whose
names say nothing, bytes that are no text and numbers that are not finite are foreseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conch.tensor_spec import TensorSpec
from gateway.catalogue import ServedModel
from gateway.rest.assets import Assets
from gateway.rest.values import is_file

Schema = dict[str, Any]

# Integers beyond these are no numbers in JavaScript; OpenAPI's formats for the rest.
# Source: https://spec.openapis.org/registry/format/
_FORMATS = {"INT32": "int32", "INT64": "int64", "FP32": "float", "FP64": "double"}
_BASE64 = {
    "type": "object",
    "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["base64"],
    "additionalProperties": False,
}
# Outputs of which ARCHITECTURE.md says what they hold: text, and finite numbers.
_TEXT = frozenset({"label", "top_labels", "entities"})
_FINITE = frozenset({"embedding", "score", "scores", "top_scores"})


def row_schema(model: ServedModel, assets: Assets) -> Schema:
    """A row: its inputs by name."""
    inputs = model.signature.inputs
    schema: Schema = {
        "type": "object",
        "properties": {spec.name: _tensor(spec, _input_leaf(spec, model.kind)) for spec in inputs},
        "required": [spec.name for spec in inputs if not spec.optional],
        "additionalProperties": False,
    }
    example = _example(model, assets)
    return schema | ({"examples": [example]} if example else {})


def form_schema(model: ServedModel) -> Schema | None:
    """A row as form data, for models that take files; None for others."""
    if not any(is_file(spec) for spec in model.signature.inputs):
        return None
    schema = row_schema(model, Assets())
    for spec in model.signature.inputs:
        if is_file(spec):
            schema["properties"][spec.name] = {"type": "string", "format": "binary", "description": "the file itself"}
    return schema


def answer_schema(model: ServedModel, assets: Assets) -> Schema:
    """An answer's row: the outputs by name."""
    outputs = model.signature.outputs
    return {
        "type": "object",
        "properties": {spec.name: _output(spec, assets) for spec in outputs},
        "required": [spec.name for spec in outputs],
    }


def _tensor(spec: TensorSpec, leaf: Schema) -> Schema:
    """Nested lists of the tensor's dims; a plain value where all are 1."""
    schema = dict(leaf)
    if all(d == 1 for d in spec.dims):
        return schema
    for size in reversed(spec.dims):
        lengths = {"minItems": 1} if size == -1 else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **lengths}
    return schema


def _input_leaf(spec: TensorSpec, kind: str) -> Schema:
    if is_file(spec):
        return {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": 1,
            "description": "an image file in base64, or a data URL of one",
        }
    leaf = _in_range(spec)
    return {"anyOf": [leaf, _BASE64]} if spec.datatype == "BYTES" and kind == "tensors" else leaf


def _output(spec: TensorSpec, assets: Assets) -> Schema:
    leaf = _leaf(spec)
    if spec.datatype == "BYTES":
        if spec.name in _TEXT - {"entities"} and assets.labels:
            leaf["enum"] = list(dict.fromkeys((*assets.labels, *assets.others)))
        elif is_file(spec):
            leaf["contentEncoding"] = "base64"
        elif spec.name not in _TEXT:
            leaf = {"anyOf": [leaf, _BASE64]}
    elif spec.numpy.kind == "f" and spec.name not in _FINITE:
        leaf["type"] = ["number", "null"]
        leaf["description"] = "null where the model answers NaN or an infinity"
    schema = _tensor(spec, leaf)
    if spec.name == "scores" and assets.labels:
        schema["description"] = f"in this order: {', '.join(assets.labels)}"
    return schema


def _leaf(spec: TensorSpec) -> Schema:
    """One value."""
    schema: Schema = {"type": {"b": "boolean", "O": "string", "f": "number"}.get(spec.numpy.kind, "integer")}
    return schema | ({"format": _FORMATS[spec.datatype]} if spec.datatype in _FORMATS else {})


def _in_range(spec: TensorSpec) -> Schema:
    """One value of an input: what its type holds."""
    schema = _leaf(spec)
    if spec.numpy.kind in "iu":
        limits = np.iinfo(spec.numpy)
        schema |= {"minimum": int(limits.min), "maximum": int(limits.max)}
    elif spec.datatype in ("FP16", "FP32"):
        limit = float(np.finfo(spec.numpy).max)
        schema |= {"minimum": -limit, "maximum": limit}
    return schema


def _example(model: ServedModel, assets: Assets) -> dict[str, Any]:
    """The golden request as a row: text for text, plain values where every dim is 1."""
    example = {}
    for spec in model.signature.inputs:
        if is_file(spec) or spec.name not in assets.example:
            continue
        value = assets.example[spec.name]
        if model.signature.batched:
            value = value[0]
        while all(d == 1 for d in spec.dims) and isinstance(value, list):
            value = value[0]
        example[spec.name] = value
    complete = all(spec.name in example for spec in model.signature.inputs if not spec.optional)
    return example if complete else {}
