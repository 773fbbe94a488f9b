"""Requests to try a version with, and how its answers are judged: names, shapes, finite numbers, then values.

Where a manifest knows the answer, values are held to it. Floating numbers may differ by the tolerance that the export
measured for the output (another CPU adds in another order, and int8 kernels differ between CPUs), or else by 1e-4 of
the largest value that is due; the direction of a vector may not differ more than the export's own lowest cosine. All
else must be equal; in lists in JSON, numbers may differ by the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clients.compare import Differences
from conch.errors import RepositoryError, SignatureError
from conch.manifest import Golden, Manifest, Parity, tensor_from_json, tensor_to_json
from conch.tensor_spec import Array, ModelSignature, TensorSpec, describe_tensors

Tensors = Mapping[str, Array]
Ask = Callable[[Tensors], Tensors]

RELATIVE_TOLERANCE = 1e-4
# Rounding alone takes a cosine of 1 this far down.
_COSINE_ROUNDING = 1e-4
# A variable dimension of a request that is made up.
_MADE_UP_SIZE = 8
# A manifest is read by people too.
_MAX_ENTRIES = 1024
MAX_GOLDEN = 3


@dataclass(frozen=True)
class Request:
    """One request: ``outputs`` is the answer that is due, None where nobody knows; ``origin`` says where it is from."""

    inputs: Tensors
    outputs: Tensors | None
    origin: str
    made_up: bool = False


@dataclass(frozen=True)
class Limits:
    """How far floating numbers may be from what is due.

    ``absolute`` replaces what the export measured; ``relative`` is of the largest value due, where that is above 1.
    """

    absolute: float | None = None
    relative: float = RELATIVE_TOLERANCE


def recorded(manifest: Manifest | None) -> tuple[Request, ...]:
    """The golden requests of a manifest, with the answers due."""
    return (
        tuple(_request(golden, "a golden request of its manifest") for golden in manifest.golden)
        if manifest is not None
        else ()
    )


def from_golden(golden: Golden, origin: str) -> Request:
    """A golden request; one without outputs has no answer due."""
    return _request(golden, origin)


def _request(golden: Golden, origin: str) -> Request:
    inputs = {name: tensor_from_json(tensor) for name, tensor in golden.inputs.items()}
    outputs = {name: tensor_from_json(tensor) for name, tensor in golden.outputs.items()}
    return Request(inputs, outputs or None, origin)


def suits(request: Request, signature: ModelSignature) -> bool:
    """Whether a model of this signature takes the request."""
    try:
        signature.check_inputs(dict(request.inputs))
    except SignatureError:
        return False
    return True


def made_up(signature: ModelSignature) -> tuple[Request, ...]:
    """A request of the signature's types and shapes, the same each time."""
    inputs = {spec.name: _made_up(spec, batched=signature.batched) for spec in signature.inputs if not spec.optional}
    return (Request(inputs, None, "a request made up from its signature", made_up=True),)


def _made_up(spec: TensorSpec, *, batched: bool) -> Array:
    shape = tuple(
        1 if batched and i == 0 else _MADE_UP_SIZE if d == -1 else d for i, d in enumerate(spec.shape(batched=batched))
    )
    random = np.random.default_rng(zlib.crc32(spec.name.encode()))
    if spec.datatype == "BYTES":
        value = _png() if spec.name == "image" else b"a short text to try the model with"
        array = np.empty(shape, dtype=object)
        array.fill(value)
        return array
    if spec.datatype == "BOOL":
        return np.ones(shape, dtype=bool)
    if np.issubdtype(spec.numpy, np.integer):
        return random.integers(0, 2, shape).astype(spec.numpy)
    return random.standard_normal(shape).astype(spec.numpy)


def _png() -> bytes:
    """A grey picture of 32 x 32 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (32).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    rows = (b"\0" + b"\x80" * 32) * 32
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def check_form(signature: ModelSignature, inputs: Tensors, outputs: Tensors, due: Tensors | None) -> None:
    """Raise RepositoryError unless every output is there, of its shape, one row for each row asked, and finite.

    Numbers that are not finite are let pass where ``due`` has such, too.
    """
    rows = next(iter(inputs.values())).shape[:1] if signature.batched else ()
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise RepositoryError(
                f"the answer has no output {spec.name}",
                got=", ".join(outputs) or "nothing",
                expected=describe_tensors(signature.outputs, batched=signature.batched),
            )
        array = outputs[spec.name]
        if not spec.accepts(array.shape, batched=signature.batched) or array.shape[: len(rows)] != rows:
            raise RepositoryError(
                f"output {spec.name} has another shape than the config says",
                got=list(array.shape),
                expected=spec.describe(batched=signature.batched) + (f" with {rows[0]} rows" if rows else ""),
            )
        known = due.get(spec.name) if due is not None else None
        if _is_float(array) and not np.isfinite(array).all() and (known is None or np.isfinite(known).all()):
            raise RepositoryError(
                f"output {spec.name} has numbers that are not finite",
                got=_some(array[~np.isfinite(array)]),
                expected="finite numbers",
                fix="if the model may answer so, give a request with its answer: --golden FILE",
            )


def check_values(outputs: Tensors, due: Tensors, parity: Sequence[Parity] = (), limits: Limits | None = None) -> None:
    """Raise RepositoryError where an answer is not what is due."""
    limits = limits or Limits()
    rows = {row.output: row for row in parity} if limits.absolute is None else {}
    for name, expected in due.items():
        got = outputs.get(name)
        if got is None or got.shape != expected.shape or _is_float(got) != _is_float(expected):
            found = "no such output" if got is None else f"{list(got.shape)} of {got.dtype}"
            raise RepositoryError(
                f"output {name} has another form than is due",
                got=found,
                expected=f"{list(expected.shape)} of {expected.dtype}",
            )
        fault = _fault(got, expected, rows.get(name), limits)
        if fault:
            raise RepositoryError(
                f"output {name} is not what is due",
                got=f"{_some(got)}: {fault}",
                expected=_some(expected),
                fix="find what differs from where the manifest was written; if it is harmless: --tolerance",
            )


def agree(first: Tensors, second: Tensors) -> bool:
    """Whether two answers to one request are the same, but for rounding."""
    try:
        check_values(second, first)
    except RepositoryError:
        return False
    return True


def _fault(got: Array, expected: Array, row: Parity | None, limits: Limits) -> str:
    """In which way an answer is not what is due; empty when it is."""
    if not _is_float(expected):
        same = [_same(a, b) for a, b in zip(_plain(expected), _plain(got), strict=True)]
        return "" if all(same) else f"{same.count(False)} of {len(same)} entries differ"
    differences = Differences()
    differences.add({"": expected}, {"": got})
    largest = differences.outputs()[0].largest or 0.0
    limit = _limit(expected, row, limits)
    if largest > limit:
        return f"largest difference {largest:.6g} > {limit:.6g}"
    if row is None or row.cosine is None:
        return ""
    lowest = min((_cosine(a, b) for a, b in zip(_rows(expected), _rows(got), strict=True)), default=1.0)
    due = row.cosine - _COSINE_ROUNDING
    return f"cosine {lowest:.6g} < {due:.6g}" if lowest < due else ""


def _limit(expected: Array, row: Parity | None, limits: Limits) -> float:
    if limits.absolute is not None:
        return limits.absolute
    finite = np.abs(expected[np.isfinite(expected)])
    usual = limits.relative * max(1.0, float(finite.max(initial=0.0)))
    return max(usual, row.tolerance) if row is not None else usual


def as_text(tensors: Tensors) -> dict[str, Array]:
    """Tensors with their bytes decoded, as a manifest has them."""
    return {name: _decoded(array) if array.dtype.kind == "O" else array for name, array in tensors.items()}


def _decoded(array: Array) -> Array:
    decoded = np.empty(array.shape, dtype=object)
    for index, item in np.ndenumerate(array):
        decoded[index] = item.decode("utf-8", "replace") if isinstance(item, bytes) else item
    return decoded


def record(request: Request, outputs: Tensors) -> Golden | None:
    """A request and its answer for a manifest; None when it is too large, or holds bytes that are no text."""
    tensors = [*request.inputs.values(), *outputs.values()]
    if any(array.size > _MAX_ENTRIES for array in tensors) or not all(_is_text(array) for array in tensors):
        return None
    return Golden(
        inputs={name: tensor_to_json(array) for name, array in request.inputs.items()},
        outputs={name: tensor_to_json(array) for name, array in outputs.items()},
    )


def together(requests: Sequence[Request], signature: ModelSignature) -> Request | None:
    """Two requests as one batch, with their answers; None where there is no batch of two, or shapes differ."""
    if signature.max_batch_size < 2 or not requests:
        return None
    first, second = requests[0], requests[1] if len(requests) > 1 else requests[0]
    inputs = _stack(first.inputs, second.inputs)
    if inputs is None or next(iter(inputs.values())).shape[0] > signature.max_batch_size:
        return None
    outputs = _stack(first.outputs, second.outputs) if first.outputs and second.outputs else None
    return Request(inputs, outputs, f"two of these as one batch: {requests[0].origin}", requests[0].made_up)


def _stack(first: Tensors, second: Tensors) -> Tensors | None:
    if first.keys() != second.keys() or any(first[n].shape[1:] != second[n].shape[1:] for n in first):
        return None
    return {name: np.concatenate([first[name], second[name]]) for name in first}


def _is_float(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _is_text(array: Array) -> bool:
    if array.dtype.kind != "O":
        return True
    for item in array.ravel().tolist():
        raw = item if isinstance(item, bytes) else str(item).encode()
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return False
        if len(raw) > _MAX_ENTRIES:
            return False
    return True


def _rows(array: Array) -> Array:
    """[n, ...] as [n, entries]; one dimension is one row."""
    return array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(1, -1)


def _cosine(a: Array, b: Array) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.size < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 1.0  # nothing that could turn, or judged by the differences
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


def _plain(array: Array) -> list[object]:
    return [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in np.asarray(array).ravel().tolist()]


def _same(a: object, b: object) -> bool:
    if a == b:
        return True
    if not (isinstance(a, str) and isinstance(b, str) and a[:1] == b[:1] and a[:1] in ("[", "{")):
        return False
    try:
        return _same_json(json.loads(a), json.loads(b))
    except ValueError:
        return False


def _same_json(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= RELATIVE_TOLERANCE * max(1.0, abs(a))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same_json(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_json(a[key], b[key]) for key in a)
    return a == b


def _some(array: Array) -> str:
    """The first few entries, for a message."""
    shown = [f"{x:.6g}" if isinstance(x, float) else repr(x)[:60] for x in _plain(array)[:5]]
    return ", ".join(shown) + (", ..." if array.size > len(shown) else "")


def read_golden(path: Path) -> tuple[Golden, ...]:
    """Golden requests of a JSON file, a list as manifests have it; answers may be left out. Raises: RepositoryError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(Golden(dict(row["inputs"]), dict(row.get("outputs") or {})) for row in rows)
        for golden in found:
            from_golden(golden, str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SignatureError) as error:
        raise RepositoryError(
            "the golden requests cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected='[{"inputs": {"x": {"datatype": "FP32", "shape": [1, 4], "data": [...]}}, "outputs": {...}}]',
        ) from error
    if not found:
        raise RepositoryError("the file has no golden request", where=path)
    return found
