"""Rows as a model's requests, and its answers as rows. Pure.

A row is one item: plain values by input name. Rows become requests of at most max_batch_size; rows that name other
inputs, or whose lists have other lengths, go into requests of their own. Their order is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conch.errors import nearest
from conch.tensor_spec import Array, ModelSignature, TensorSpec, describe_tensors
from gateway.errors import GatewayError
from gateway.numbers import numbers
from gateway.rest.json_body import json_text, kind_of
from gateway.rest.values import Column, is_file, to_array

Row = Mapping[str, Any]

# More would take long enough to be a job of its own.
MAX_ROWS = 10_000


@dataclass(frozen=True)
class Chunk:
    """One request: its rows' places, and the inputs with their whole shapes."""

    places: tuple[int, ...]
    inputs: Mapping[str, Array]


def one_row(signature: ModelSignature, row: Row) -> Mapping[str, Array]:
    """A single row's inputs. Raises: GatewayError 400."""
    _check_names(signature, row, "")
    return _inputs(signature, (row,), None)


def chunks(signature: ModelSignature, rows: Sequence[Row]) -> list[Chunk]:
    """Rows as requests. Raises: GatewayError 400, with the first wrong row's place."""
    variable = [spec.name for spec in signature.inputs if -1 in spec.dims]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            name = f"rows[{place}]"
            raise GatewayError(f"{name} is no object", param=name, got=kind_of(row), expected='{"input": value, ...}')
        names = frozenset(row)
        key = (names, *[_shape(row.get(name)) for name in variable])
        groups.setdefault(key, []).append(place)
    made = []
    size = max(1, signature.max_batch_size)
    for places in groups.values():
        _check_names(signature, rows[places[0]], f"rows[{places[0]}]")
        for start in range(0, len(places), size):
            some = places[start : start + size]
            made.append(Chunk(tuple(some), _inputs(signature, [rows[place] for place in some], some)))
    return made


def _shape(value: Any) -> tuple[int, ...]:
    """The lengths of nested lists, by their first items."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _inputs(signature: ModelSignature, rows: Sequence[Row], places: Sequence[int] | None) -> dict[str, Array]:
    """Rows that name the same inputs, as arrays; without the batch dimension where the model has none."""
    arrays = {
        spec.name: to_array(Column(spec, [row[spec.name] for row in rows], places))
        for spec in signature.inputs
        if spec.name in rows[0]
    }
    return arrays if signature.batched else {name: array[0] for name, array in arrays.items()}


def _check_names(signature: ModelSignature, row: Row, place: str) -> None:
    """Raise GatewayError unless the row has the inputs that the model takes."""
    known = {spec.name for spec in signature.inputs}
    where = place or None
    for name in row:
        if name not in known:
            close = nearest(name, known)
            raise GatewayError(
                f"the model has no input {name[:80]}",
                where=where,
                param=f"{place}.{name[:80]}".lstrip("."),
                expected=describe_tensors(signature.inputs, batched=False),
                fix=f"did you mean {close}?" if close else None,
            )
    missing = [spec.name for spec in signature.inputs if spec.name not in row and not spec.optional]
    if missing:
        raise GatewayError(
            f"input {', '.join(missing)} is missing",
            where=where,
            param=f"{place}.{missing[0]}".lstrip("."),
            got=", ".join(row)[:200] or "no inputs",
            expected=describe_tensors(signature.inputs, batched=False),
        )


def answer_rows(signature: ModelSignature, answer: Mapping[str, Array], count: int) -> list[str]:
    """The outputs of ``count`` rows as JSON, an object each: plain values, or nested lists, by name, in their order.

    Raises: GatewayError 502 when the model answered about another number of rows.
    """
    columns = []
    for spec in signature.outputs:
        if spec.name not in answer:
            continue
        array = answer[spec.name]
        values = _texts(spec, array if signature.batched else array[None])
        if len(values) != count:
            got = f"{len(values)} in output {spec.name}"
            raise GatewayError("the model answers another number of rows", status=502, got=got, expected=count)
        columns.append([f"{json_text(spec.name)}:{value}" for value in values])
    return [f"{{{','.join(row)}}}" for row in zip(*columns, strict=True)] if columns else ["{}"] * count


def _texts(spec: TensorSpec, array: Array) -> list[str]:
    """One output's values [rows, *dims] as JSON, a row each."""
    if all(d == 1 for d in spec.dims):
        array = array.reshape(len(array))
    if array.dtype != object:
        return numbers(array)
    file = is_file(spec)
    return [json_text(_plain(value, file=file)) for value in array.tolist()]


def _plain(value: Any, *, file: bool) -> Any:
    """Bytes as text; a file's, and those that are no UTF-8, in base64."""
    if isinstance(value, list):
        return [_plain(item, file=file) for item in value]
    if not isinstance(value, bytes):
        return str(value)
    if file:
        return base64.b64encode(value).decode()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
