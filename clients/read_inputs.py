"""What `conch infer` is given on the command line and in files, as requests for one model.

Knows the model's signature, and nothing of the server. Needs no pandas: the core install can ask a model about a CSV.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clients.request import split
from conch.errors import InvalidInput, nearest
from conch.tensor_spec import ModelSignature, TensorSpec, data_type, describe_tensors

STDIN = "-"


@dataclass(frozen=True)
class Requests:
    """Inputs to send, one mapping a request; a short label for each item, in order; what the user should know."""

    inputs: Sequence[Mapping[str, Any]]
    labels: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def from_texts(signature: ModelSignature, texts: Sequence[str], pairs: Sequence[str]) -> Requests:
    """Each text one item, with its pair where there are any. Raises: InvalidInput."""
    columns: dict[str, Any] = {_string_input(signature, "text").name: list(texts)}
    if pairs:
        if len(pairs) != len(texts):
            raise InvalidInput(
                "texts and pairs do not match",
                got=f"{len(texts)} --text, {len(pairs)} --text-pair",
                expected="one pair for each text",
            )
        columns[signature.input("text_pair").name] = list(pairs)
    return Requests(_cut(signature, columns), labels=texts)


def from_images(signature: ModelSignature, paths: Sequence[Path]) -> Requests:
    """Each file one item, as it lies on disk: models decode it. Raises: InvalidInput when one cannot be read."""
    name = _string_input(signature, "image").name
    return Requests(_cut(signature, {name: [_read(path) for path in paths]}), labels=[path.name for path in paths])


def from_json(source: str) -> Requests:
    """One request or a list of them: inputs by name, or in the form of Triton's own HTTP protocol.

    ``{"text": ["a", "b"]}``, or
    ``{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}]}``.
    Raises: InvalidInput when it cannot be read.
    """
    content = sys.stdin.buffer.read() if source == STDIN else _read(Path(source))
    where = "standard input" if source == STDIN else source
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InvalidInput("the file is no JSON", where=where, got=error) from error
    listed = document if isinstance(document, list) else [document]
    if not listed or not all(isinstance(request, dict) for request in listed):
        expected = 'an object of inputs by name, as {"text": ["..."]}, or a list of such'
        raise InvalidInput("the JSON holds no request", where=where, got=f"{document!r:.80}", expected=expected)
    return Requests([_protocol_inputs(request, where) for request in listed])


def from_csv(signature: ModelSignature, path: Path) -> Requests:
    """Each row one item: columns are inputs of their names, or in their order the items of the model's one input.

    Columns that are no input are left out, with a note. Raises: InvalidInput, naming row and column.
    """
    try:
        rows = list(csv.reader(io.StringIO(_read(path).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput("the file is no CSV in UTF-8", where=path, got=error) from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise InvalidInput("the CSV has no rows", where=path, expected="a line of column names, and rows below it")
    header = [name.strip() for name in rows[0]]
    uneven = next((n for n, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if uneven is not None:
        got = f"{len(rows[uneven - 1])} values, where the header has {len(header)}"
        raise InvalidInput("a row has the wrong length", where=f"{path}, row {uneven}", got=got)
    table = {name: [row[index] for row in rows[1:]] for index, name in enumerate(header)}
    required = [spec for spec in signature.inputs if not spec.optional]
    known = {spec.name for spec in signature.inputs}
    labels = [f"row {n}" for n in range(1, len(rows))]
    if len(required) == 1 and not known & set(header) and required[0].datatype != "BYTES":
        features = [_parsed(required[0], name, values, path) for name, values in table.items()]
        merged = [list(row) for row in zip(*features, strict=True)]
        return Requests(_cut(signature, {required[0].name: merged}), labels)
    missing = [spec.name for spec in required if spec.name not in header]
    if missing:
        close = nearest(missing[0], header)
        raise InvalidInput(
            f"the CSV has no column {', '.join(missing)}",
            where=path,
            got=", ".join(header),
            expected=describe_tensors(signature.inputs, batched=signature.batched),
            fix=f"name the column {close} {missing[0]}" if close else None,
        )
    extra = [name for name in header if name not in known]
    notes = [f"left out, as the model has no such input: {', '.join(extra)}"] if extra else []
    columns = {n: _parsed(signature.input(n), n, values, path) for n, values in table.items() if n in known}
    return Requests(_cut(signature, columns), labels, notes)


def _cut(signature: ModelSignature, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items as requests: as many in each as the model takes; where it takes no batch, one, without that dimension."""
    if signature.batched:
        # The rules of clients.convert make [n, 1] of n values; wider items have their dimensions already.
        return list(split(columns, signature.max_batch_size))
    return [{name: value[0] for name, value in request.items()} for request in split(columns, 1)]


def _string_input(signature: ModelSignature, name: str) -> TensorSpec:
    """The input of this name, or the model's only STRING input. Raises: InvalidInput."""
    strings = [spec for spec in signature.inputs if spec.datatype == "BYTES"]
    found = [spec for spec in strings if spec.name == name] or (strings if len(strings) == 1 else [])
    if not found:
        raise InvalidInput(
            f"the model takes no --{name}",
            expected=describe_tensors(signature.inputs, batched=signature.batched),
            fix="give the inputs with --json FILE or --csv FILE",
        )
    return found[0]


def _parsed(spec: TensorSpec, column: str, values: Sequence[str], path: Path) -> list[Any]:
    """A CSV column's cells, as values of the input's kind."""
    if spec.datatype == "BYTES":
        return list(values)
    cells = []
    for row, cell in enumerate(values, 1):
        try:
            cells.append(_number(cell.strip(), spec.datatype))
        except ValueError as error:
            raise InvalidInput(
                "a cell is no number" if cell.strip() else "a cell is empty",
                where=f"{path}, row {row}, column {column}",
                got=repr(cell),
                expected=f"{spec.datatype}",
                fix=None if cell.strip() else "fill missing values first",
            ) from error
    return cells


def _number(cell: str, datatype: str) -> int | float | bool:
    if datatype == "BOOL":
        lowered = cell.lower()
        if lowered not in ("true", "false", "1", "0"):
            raise ValueError(cell)
        return lowered in ("true", "1")
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _protocol_inputs(request: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A request by input name; Triton's own form is recognised by its list of inputs with data."""
    tensors = request.get("inputs")
    if not (isinstance(tensors, list) and tensors and all(isinstance(t, dict) and "data" in t for t in tensors)):
        return dict(request)
    inputs = {}
    for tensor in tensors:
        try:
            dtype = data_type(tensor["datatype"]).numpy
            inputs[tensor["name"]] = np.array(tensor["data"], dtype=dtype).reshape(tensor["shape"])
        except (KeyError, ValueError, TypeError) as error:
            expected = (
                'name, datatype, shape and data, e.g. {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}'
            )
            got = f"{error} in {tensor!r:.80}"
            raise InvalidInput("a tensor does not fit its shape", where=where, got=got, expected=expected) from error
    return inputs


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("the file cannot be read", where=path, got=error.strerror) from error
