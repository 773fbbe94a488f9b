"""Does the written model answer as its source does? Names, then shapes, then values.

Each output of floating numbers is held to the limits of its precision, over all samples:

fp32   largest difference 1e-4. The two frameworks add the same numbers in another order; a few hundred additions of
       numbers near 1 differ by some 1e-5 at the most.
fp16   largest difference 2e-2, cosine 0.999. Half precision keeps 11 bits, 5e-4 of a number's size, and a dozen layers
       add up.
int8   cosine 0.9, largest difference 0.4 of the largest reference value, and, where the largest entry is the answer
       (class scores), the same answer in 90 % of the samples. 8 bits keep directions and ranks, not digits: measured on
       all-MiniLM-L6-v2 over texts from one word to a page, the lowest cosine is 0.964 and the mean 0.987, and one entry
       of a vector differs by 0.29 of the largest; CPUs without VNNI instructions add with less room. A model broken by
       outliers in its weights falls far below.

Differences are relative to the size of what is compared: the absolute tolerance is the limit times the largest
reference value where that is above 1 (int8: whatever it is). ``--atol`` and a source's own tolerances are absolute, and
replace it. Labels, integers and strings must be equal (of lists in JSON, numbers within the limit); with int8 one entry
in ten may differ. An entry that the source leaves open (None) is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conch.errors import ParityError
from conch.manifest import Parity
from conch.tensor_spec import Array, ModelSignature, TensorSpec, describe_tensors
from export.source import Reference, Tensors


@dataclass(frozen=True)
class Limits:
    """What a precision may cost. ``relative_always`` scales small outputs down too, not only large ones up."""

    difference: float
    cosine: float | None = None
    top1_agreement: float | None = None
    unequal_share: float = 0.0
    relative_always: bool = False


LIMITS = {
    "fp32": Limits(difference=1e-4),
    "fp16": Limits(difference=2e-2, cosine=0.999),
    "int8": Limits(difference=0.4, cosine=0.9, top1_agreement=0.9, unequal_share=0.1, relative_always=True),
}

# Outputs whose largest entry is the answer; of an embedding it means nothing.
CLASS_SCORES = ("logits", "scores", "probabilities", "output_probability")

# A sample whose two best classes are nearer than this share of its range has no answer that rounding could change.
TIE = 0.05


def compare(
    written: Reference,
    source: Reference,
    samples: Sequence[Tensors],
    signature: ModelSignature,
    *,
    precision: str = "fp32",
    atol: float | None = None,
) -> tuple[Parity, ...]:
    """Compare two functions over samples, an entry per output. Raises: ParityError at the first that fails."""
    pairs = []
    for index, sample in enumerate(samples):
        due, got = source(sample), written(sample)
        check_shapes(got, due, signature, where=f"sample {index + 1} of {len(samples)}")
        pairs.append((due, got))
    rows = []
    for spec in signature.outputs:
        values = [(due[spec.name], got[spec.name]) for due, got in pairs if spec.name in due]
        if values:
            rows.append(compare_output(spec, values, precision=precision, atol=atol))
    return tuple(rows)


def check_shapes(got: Tensors, due: Tensors, signature: ModelSignature, where: str) -> None:
    """Raise ParityError unless both have every output, of one shape. The source may leave outputs out."""
    for spec in signature.outputs:
        if spec.name not in got:
            raise ParityError(
                f"the written model has no output {spec.name}",
                where=where,
                got=", ".join(got),
                expected=describe_tensors(signature.outputs, batched=signature.batched),
            )
        if spec.name in due and got[spec.name].shape != due[spec.name].shape:
            raise ParityError(
                f"output {spec.name} has another shape than the source's",
                where=where,
                got=list(got[spec.name].shape),
                expected=list(due[spec.name].shape),
            )


def compare_output(
    spec: TensorSpec, values: Sequence[tuple[Array, Array]], *, precision: str, atol: float | None
) -> Parity:
    """Compare one output over all samples; ``values`` are (source, written). Raises: ParityError."""
    limits = LIMITS[precision]
    if spec.datatype not in ("FP16", "FP32", "FP64", "BF16"):
        return _compare_exactly(spec, values, limits, precision)
    due = [np.asarray(d, dtype=np.float64) for d, _ in values]
    got = [np.asarray(g, dtype=np.float64) for _, g in values]
    scale = max((float(np.max(np.abs(d), where=np.isfinite(d), initial=0.0)) for d in due), default=0.0)
    row = Parity(
        output=spec.name,
        samples=len(values),
        largest_difference=max(_difference(d, g) for d, g in zip(due, got, strict=True)),
        tolerance=atol if atol is not None else limits.difference * _factor(scale, limits),
        cosine=_lowest_cosine(due, got),
        top1_agreement=_agreement(due, got),
    )
    _judge(row, limits, precision)
    return row


def _factor(scale: float, limits: Limits) -> float:
    return scale if limits.relative_always and scale > 0 else max(1.0, scale)


def _judge(row: Parity, limits: Limits, precision: str) -> None:
    what = f"the written model does not answer as its source: output {row.output}"
    fixes = {
        "fp32": "find what the conversion changed; if the difference is harmless, pass --atol",
        "fp16": "export with --precision fp32, or pass --atol if the difference is harmless",
        "int8": "export with --precision fp16 or fp32, or try static int8 with (other) --calibration data",
    }
    checks = (
        ("largest difference", row.largest_difference, row.tolerance, row.largest_difference <= row.tolerance),
        ("lowest cosine", row.cosine, limits.cosine, _at_least(row.cosine, limits.cosine)),
        (
            "top-1 agreement",
            row.top1_agreement,
            limits.top1_agreement,
            row.output not in CLASS_SCORES or _at_least(row.top1_agreement, limits.top1_agreement),
        ),
    )
    for name, got, due, passed in checks:
        if not passed:
            sign = "<=" if name == "largest difference" else ">="
            raise ParityError(
                what,
                where=f"{row.samples} samples, precision {precision}",
                got=f"{name} {got:.6g}",
                expected=f"{sign} {due:.6g}",
                fix=fixes[precision],
            )


def _at_least(value: float | None, limit: float | None) -> bool:
    return value is None or limit is None or value >= limit


def _difference(due: Array, got: Array) -> float:
    """The largest absolute difference; equal infinities and two NaN are no difference, one NaN is an infinite one."""
    same = (due == got) | (np.isnan(due) & np.isnan(got))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(due - got))
    return float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))


def _rows(array: Array) -> Array:
    """[n, ...] as [n, entries]."""
    return array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(1, -1)


def _lowest_cosine(due: Sequence[Array], got: Sequence[Array]) -> float | None:
    """The lowest cosine between rows; None for outputs of a single number."""
    found = []
    for d, g in zip(map(_rows, due), map(_rows, got), strict=True):
        if d.shape[1] < 2 or not (np.isfinite(d).all() and np.isfinite(g).all()):
            continue
        lengths = np.linalg.norm(d, axis=1) * np.linalg.norm(g, axis=1)
        dots = (d * g).sum(axis=1)
        found.extend(np.where(lengths > 0, dots / np.where(lengths > 0, lengths, 1.0), (d == g).all(axis=1)).tolist())
    return float(min(found)) if found else None


def _agreement(due: Sequence[Array], got: Sequence[Array]) -> float | None:
    """The share of rows whose largest entry is the same; rows that are a tie are left out."""
    same: list[bool] = []
    for d, g in zip(due, got, strict=True):
        if d.ndim < 2 or d.shape[-1] < 2:
            continue
        rows, others = d.reshape(-1, d.shape[-1]), g.reshape(-1, d.shape[-1])
        best = np.sort(rows, axis=1)
        clear = best[:, -1] - best[:, -2] > TIE * (best[:, -1] - best[:, 0])
        same.extend((rows.argmax(axis=1) == others.argmax(axis=1))[clear].tolist())
    return sum(same) / len(same) if same else None


def _compare_exactly(spec: TensorSpec, values: Sequence[tuple[Array, Array]], limits: Limits, precision: str) -> Parity:
    """Labels, integers, booleans, strings: the largest difference is the share of entries that are not equal."""
    total, unequal = 0, 0
    example: tuple[object, object] | None = None
    for due, got in values:
        for d, g in zip(_plain(due), _plain(got), strict=True):
            if d is None:
                continue
            total += 1
            if not _same(d, g, limits):
                unequal += 1
                example = example or (d, g)
    share = unequal / total if total else 0.0
    row = Parity(spec.name, len(values), share, limits.unequal_share)
    if share > limits.unequal_share:
        assert example is not None
        raise ParityError(
            f"the written model does not answer as its source: output {spec.name}",
            where=f"{len(values)} samples, precision {precision}",
            got=f"{example[1]!r} ({unequal} of {total} entries differ)",
            expected=f"{example[0]!r}",
        )
    return row


def _same(due: object, got: object, limits: Limits) -> bool:
    """Equal; lists in JSON (entities) may differ in their floating numbers, as far as the precision allows."""
    if due == got:
        return True
    if not (isinstance(due, str) and isinstance(got, str) and due[:1] == got[:1] == "["):
        return False
    try:
        return _same_json(json.loads(due), json.loads(got), limits.difference)
    except ValueError:
        return False


def _same_json(due: object, got: object, difference: float) -> bool:
    if isinstance(due, float) and isinstance(got, float):
        return abs(due - got) <= difference
    if isinstance(due, list) and isinstance(got, list):
        return len(due) == len(got) and all(_same_json(d, g, difference) for d, g in zip(due, got, strict=True))
    if isinstance(due, dict) and isinstance(got, dict):
        return due.keys() == got.keys() and all(_same_json(due[key], got[key], difference) for key in due)
    return due == got


def _plain(array: Array) -> list[object]:
    flat = np.asarray(array).ravel().tolist()
    return [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in flat]


def describe(row: Parity) -> Mapping[str, str]:
    """A row as text for the report's table."""
    return {
        "output": row.output,
        "samples": str(row.samples),
        "largest difference": f"{row.largest_difference:.3g}",
        "tolerance": f"{row.tolerance:.3g}",
        "cosine": "" if row.cosine is None else f"{row.cosine:.5f}",
        "top-1": "" if row.top1_agreement is None else f"{row.top1_agreement:.1%}",
    }
