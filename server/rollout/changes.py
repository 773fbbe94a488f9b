"""What a publish changes: config fields, tensors, sizes, against the version that serves. Reads files only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE
from conch.model_config import ModelConfigMessage, signature_of
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from server.repo_view.comparison import Change, changes, fields_of
from server.rollout.candidate import CandidateModel, live_config


@dataclass(frozen=True)
class ModelChanges:
    """One model of a publish.

    ``config`` are fields of config.pbtxt, ``tensors`` inputs and outputs as a person reads them. Sizes are those of
    the version folders; ``size_before_bytes`` is None for a new model.
    """

    model: str
    config_from: str
    config: tuple[Change, ...]
    tensors: tuple[Change, ...]
    size_bytes: int
    size_before_bytes: int | None = None


def of_model(model: CandidateModel, staged: Path, live: Repository, serving: int | None) -> ModelChanges:
    """What changes with one model; ``staged`` is its version folder, ``serving`` the version that serves now."""
    before = live_config(live, model.name)
    size_before = size_of(live.root / model.name / str(serving)) if serving is not None else None
    if before is None:
        return ModelChanges(model.name, model.config_from, (), (), size_of(staged), size_before)
    return ModelChanges(
        model.name,
        model.config_from,
        tuple(changes(_settings(before), _settings(model.config))),
        tuple(changes(_tensors(before), _tensors(model.config))),
        size_of(staged),
        size_before,
    )


def breaking(before: ModelConfigMessage, after: ModelConfigMessage) -> list[str]:
    """What would fail requests that the model answers now, or readers of its answers; empty when nothing would.

    A new output, a new optional input, an input whose size is no longer fixed, and an output of another size (one
    more class) break nobody.
    """
    old, new = signature_of(before), signature_of(after)
    inputs, outputs = {t.name: t for t in new.inputs}, {t.name: t for t in new.outputs}
    found = []
    for spec in old.inputs:
        if spec.name not in inputs:
            found.append(f"input {spec.name} is gone")
        elif not _takes(inputs[spec.name], spec) or new.batched != old.batched:
            found.append(_becomes("input", spec, inputs[spec.name], old, new))
    known = {t.name for t in old.inputs}
    found += [f"input {t.name} is new, and not optional" for t in new.inputs if t.name not in known and not t.optional]
    for spec in old.outputs:
        if spec.name not in outputs:
            found.append(f"output {spec.name} is gone")
        elif not _same_kind(spec, outputs[spec.name]) or new.batched != old.batched:
            found.append(_becomes("output", spec, outputs[spec.name], old, new))
    return found


def _takes(reader: TensorSpec, writer: TensorSpec) -> bool:
    """Whether an input ``reader`` takes all that is sent as ``writer``."""
    sizes = zip(reader.dims, writer.dims, strict=False)
    return _same_kind(reader, writer) and all(ours in (-1, theirs) for ours, theirs in sizes)


def _same_kind(one: TensorSpec, other: TensorSpec) -> bool:
    return one.datatype == other.datatype and len(one.dims) == len(other.dims)


def _becomes(kind: str, was: TensorSpec, now: TensorSpec, old: ModelSignature, new: ModelSignature) -> str:
    return f"{kind} {was.describe(batched=old.batched)} becomes {now.describe(batched=new.batched)}"


def size_of(folder: Path) -> int:
    """The bytes of a version's files, without what is written about it."""
    own = (MANIFEST_FILE, SIGNATURE_FILE)
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name not in own)


def _settings(config: ModelConfigMessage) -> Mapping[str, str]:
    """The config's fields but for its tensors, which are told as tensors."""
    return {k: v for k, v in fields_of(config).items() if not k.startswith(("input[", "output["))}


def _tensors(config: ModelConfigMessage) -> Mapping[str, str]:
    signature = signature_of(config)
    kinds = (("input", signature.inputs), ("output", signature.outputs))
    return {f"{kind} {t.name}": t.describe(batched=signature.batched) for kind, specs in kinds for t in specs}
