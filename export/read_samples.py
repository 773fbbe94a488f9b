"""Real inputs of a model from a file: what --samples and --calibration take where a source has no reading of its own.

.npz     one sample: an array an input, batched as the model is
.json    a sample, or a list of samples: ``{"input": nested lists, batched}``
.jsonl   a sample a line
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError, SignatureError
from conch.tensor_spec import Array, ModelSignature, TensorSpec, check_array
from export.source import Tensors


def read(path: Path) -> list[dict[str, Array]]:
    """The samples of a file, by input name. Raises: ExportError when it does not hold any."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return [dict(arrays)]
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".json":
            loaded = json.loads(text)
            documents = loaded if isinstance(loaded, list) else [loaded]
        else:
            raise ExportError("samples of that kind are not known", where=path, expected=".npz, .json or .jsonl")
        if not documents or not all(isinstance(d, dict) and d for d in documents):
            raise ExportError("the file holds no samples", where=path, expected='{"input": [[...]], ...}, or a list')
        return [{name: from_lists(value) for name, value in document.items()} for document in documents]
    except (OSError, ValueError) as error:
        raise ExportError("the samples cannot be read", where=path, got=error) from error


def from_lists(value: Any) -> Array:
    """Nested lists as an array: integers INT64, numbers FP32, text as objects. Raises: ValueError when ragged."""
    array = np.array(value)
    if array.dtype.kind in "US":
        return array.astype(object)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def fit(samples: Sequence[Tensors], signature: ModelSignature, where: object) -> list[dict[str, Array]]:
    """Samples cast to the model's types, and checked against its names and shapes. Raises: ExportError."""
    try:
        return [_fit_one(sample, signature) for sample in samples]
    except SignatureError as error:
        raise ExportError(error.what, where=where, got=error.got, expected=error.expected, fix=error.fix) from error


def _fit_one(sample: Mapping[str, Array], signature: ModelSignature) -> dict[str, Array]:
    for name in sample:
        signature.input(name)
    missing = [spec for spec in signature.inputs if spec.name not in sample and not spec.optional]
    if missing:
        raise SignatureError(
            f"input {missing[0].name} is missing from the samples",
            got=", ".join(sample),
            expected=", ".join(spec.name for spec in signature.inputs),
        )
    fitted = {spec.name: _cast(sample[spec.name], spec) for spec in signature.inputs if spec.name in sample}
    for spec in signature.inputs:
        if spec.name in fitted:
            check_array(spec, fitted[spec.name], batched=signature.batched)
    return fitted


def _cast(array: Array, spec: TensorSpec) -> Array:
    """Change the type where nothing is lost by it: integers to other integers or floats, floats to other floats."""
    due = spec.numpy
    same_family = (array.dtype.kind, due.kind) in {(a, b) for a in "iub" for b in "iuf"} | {("f", "f")}
    if array.dtype.kind in "US" and due.kind == "O":
        return array.astype(object)
    return array.astype(due) if same_family and due != array.dtype else array
