"""Real inputs for a measurement, as perf_analyzer takes them: its random strings say nothing about a text model.

An input is one item without a batch dimension, for a model that batches; perf_analyzer puts `--batch-size` of them
together. Strings are sent as they are; numbers travel as their bytes in base64, so no digit is lost. A string that is
no UTF-8 text, as an image, is its bytes behind their length in 4 little-endian bytes: without that the server refuses
it (perf_analyzer 2.51).
Source: https://github.com/triton-inference-server/perf_analyzer/blob/main/docs/input_data.md
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ConchError, InvalidInput, RepositoryError
from conch.repository import Repository
from conch.tensor_spec import Array, ModelSignature, TensorSpec, describe_tensors

SHIPPED = Path(__file__).parents[1] / "inputs"
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# With fewer, a run would repeat the same few at a fixed beat.
FEWEST_STEPS = 31


@dataclass(frozen=True)
class Inputs:
    """What to send. ``steps``: each an input, tensors by name as perf_analyzer's JSON has them; ``origin``: whence."""

    steps: tuple[Mapping[str, Any], ...]
    origin: str

    def write(self, path: Path, stride: int = 1) -> Path:
        """Write perf_analyzer's file, so that each of its threads sends every input; returns the path.

        It hands inputs out by a fixed stride, concurrency times batch size: where that shares a divisor with their
        number, a thread would send the same few again and again, and one with long inputs, being slower, send fewer:
        the mix would shift to the short ones. A prime number of steps has no divisor to share, so the first few inputs
        are repeated up to the next one.
        """
        count = next_prime(max(len(self.steps), FEWEST_STEPS))
        while stride % count == 0:
            count = next_prime(count + 1)
        data = [self.steps[index % len(self.steps)] for index in range(count)]
        path.write_text(json.dumps({"data": data}, ensure_ascii=False), encoding="utf-8")
        return path


def next_prime(number: int) -> int:
    """The smallest prime that is not below a number of at least 2."""
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


def for_model(
    name: str,
    signature: ModelSignature,
    *,
    file: Path | None = None,
    repository: Path | None = None,
    version: str = "",
) -> Inputs:
    """The inputs to measure a model with: the user's file; ours of that name; its golden requests.

    ``version`` "" stands for the latest. Raises: ConchError, saying how to give some.
    """
    if file is not None:
        return from_file(signature, file)
    shipped = SHIPPED / f"{name}.json"
    if shipped.is_file():
        found = from_file(signature, shipped, check=False)
        if _fits(signature, found):  # a model of another kind may have a sample's name
            return dataclasses.replace(found, origin=f"perf/inputs/{shipped.name}")
    golden = _golden(name, signature, repository, version) if repository is not None else None
    if golden is not None:
        return golden
    looked = f"no {shipped.name} in perf/inputs/ that fits"
    looked += f", no golden requests in {repository}" if repository is not None else ""
    raise ConchError(
        f"there are no real inputs to measure {name} with",
        got=looked,
        expected=describe_tensors(signature.inputs, batched=signature.batched),
        fix="give --inputs FILE: a CSV with a column for each input, JSON or JSON lines with an object of inputs each, "
        "or a folder of images; or name the repository whose manifest has golden requests with --repository",
    )


def from_file(signature: ModelSignature, path: Path, *, check: bool = True) -> Inputs:
    """Read a CSV, JSON, JSON lines, or a folder of images. Raises: InvalidInput.

    JSON is what `conch infer --json` takes, or perf_analyzer's own ``{"data": [...]}``, which is passed on as it is.
    """
    from clients import read_inputs

    single = dataclasses.replace(signature, max_batch_size=min(signature.max_batch_size, 1))
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
        if not files:
            raise InvalidInput("the folder holds no images", where=path, expected=", ".join(IMAGES))
        return from_requests(signature, read_inputs.from_images(single, files).inputs, str(path))
    kind = path.suffix.lower()
    if kind == ".csv":
        return from_requests(signature, read_inputs.from_csv(single, path).inputs, str(path))
    if kind in (".jsonl", ".ndjson"):
        return from_requests(signature, _lines(path), str(path))
    if kind != ".json":
        raise InvalidInput(
            "the inputs are of a kind that is not known",
            where=path,
            got=kind or "a name without an ending",
            expected=".csv, .json, .jsonl, or a folder of images",
        )
    ready = _ready_made(path)
    if ready is None:
        return from_requests(signature, read_inputs.from_json(str(path)).inputs, str(path))
    found = Inputs(ready, str(path))
    if check and not _fits(signature, found):
        raise InvalidInput(
            "the inputs are not what the model takes",
            where=path,
            got=", ".join(ready[0]),
            expected=describe_tensors(signature.inputs, batched=signature.batched),
        )
    return found


def from_requests(signature: ModelSignature, requests: Iterable[Mapping[str, Any]], origin: str) -> Inputs:
    """Requests, each a mapping of inputs by name, cut into items. Raises: InvalidInput when one does not fit."""
    steps: list[Mapping[str, Any]] = []
    for number, request in enumerate(requests, 1):
        try:
            arrays = _arrays(signature, request)
        except ConchError as error:
            raise InvalidInput(
                error.what,
                where=f"{origin}, request {number}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from error
        rows = next(iter(arrays.values())).shape[0] if signature.batched else 1
        for row in range(rows):
            items = {name: array[row] if signature.batched else array for name, array in arrays.items()}
            steps.append({name: tensor(signature.input(name), item) for name, item in items.items()})
    if not steps:
        raise InvalidInput("there are no inputs", where=origin)
    return Inputs(tuple(steps), origin)


def tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    """One tensor as perf_analyzer's JSON has it."""
    shape = list(array.shape)
    if spec.datatype != "BYTES":
        raw = _bfloat16(array) if spec.datatype == "BF16" else np.ascontiguousarray(array, spec.numpy).tobytes()
        return {"b64": base64.b64encode(raw).decode(), "shape": shape}
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    try:
        return {"content": [item.decode() for item in items], "shape": shape}
    except UnicodeDecodeError:
        raw = b"".join(struct.pack("<I", len(item)) + item for item in items)
        return {"b64": base64.b64encode(raw).decode(), "shape": shape}


def _arrays(signature: ModelSignature, request: Mapping[str, Any]) -> dict[str, Array]:
    """A request as arrays of the model's types, checked."""
    from clients.convert import to_array

    arrays = {n: to_array(signature.input(n), v, batched=signature.batched) for n, v in request.items()}
    signature.check_inputs(arrays)
    return arrays


def _bfloat16(array: Array) -> bytes:
    """The upper halves of float32 numbers."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def _lines(path: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("the inputs cannot be read", where=path, got=error) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise InvalidInput("a line is no JSON", where=f"{path}, line {number}", got=error) from error
        if not isinstance(document, dict):
            raise InvalidInput("a line is no object", where=f"{path}, line {number}", got=f"{document!r:.80}")
        found.append(document)
    return found


def _ready_made(path: Path) -> tuple[Mapping[str, Any], ...] | None:
    """The steps of a file in perf_analyzer's own form; None when it is in another. Raises: InvalidInput."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput("the inputs cannot be read", where=path, got=error) from error
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or len(document) != 1 or not data or not all(isinstance(s, dict) for s in data):
        return None
    return tuple(data)


def _fits(signature: ModelSignature, inputs: Inputs) -> bool:
    """Whether the inputs' names are the model's."""
    known = {spec.name for spec in signature.inputs}
    due = {spec.name for spec in signature.inputs if not spec.optional}
    return all(due <= step.keys() <= known for step in inputs.steps)


def _golden(name: str, signature: ModelSignature, root: Path, version: str) -> Inputs | None:
    """The golden requests of a version's manifest; None where there are none."""
    from conch.manifest import tensor_from_json

    repository = Repository(root)
    try:
        number = int(version) if version else repository.latest(name)
        manifest = repository.manifest(name, number)
    except RepositoryError:
        return None
    if manifest is None or not manifest.golden:
        return None
    requests: Sequence[dict[str, Any]] = [
        {n: tensor_from_json(t) for n, t in golden.inputs.items()} for golden in manifest.golden
    ]
    return from_requests(signature, requests, f"golden requests of {name} version {number}")
