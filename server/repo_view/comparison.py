"""`conch repo diff`: what changed between two versions of a model, or of a pipeline's every part.

Configs and signatures come from the manifests, since a model's versions share one config.pbtxt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.compare import Differences, OutputDifference
from conch.errors import ConchError, RepositoryError
from conch.manifest import Golden, Manifest, digest_files, tensor_from_json
from conch.model_config import ModelConfigMessage, parse, signature_of
from conch.tensor_spec import Array
from server.repo_view import wording
from server.repo_view.contents import RepositoryView, VersionView
from server.repo_view.onnx_operators import Graph, read_graph


@dataclass(frozen=True)
class Change:
    """One thing that is otherwise: its name, and how it reads in each version; None where it is not there."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Comparison:
    """Two versions of one model. Empty tuples: nothing changed. ``notes`` say what could not be compared, and why."""

    model: str
    before: int
    after: int
    signature: tuple[Change, ...] = ()
    config: tuple[Change, ...] = ()
    source: tuple[Change, ...] = ()
    files: tuple[Change, ...] = ()
    operators: tuple[Change, ...] = ()
    weights: tuple[Change, ...] = ()
    golden: tuple[OutputDifference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing changed that was compared; golden answers that differ come from files that do."""
        return not (self.signature or self.config or self.files)


def compare_parts(view: RepositoryView, name: str, before: int, after: int) -> tuple[Comparison, ...]:
    """Two versions of a model, and of a pipeline's members that have both. Raises: RepositoryError."""
    first = compare(name, view.version(name, before), view.version(name, after))
    return (first, *(_compare_part(view, part.name, before, after) for part in view.parts(name)[1:]))


def _compare_part(view: RepositoryView, name: str, before: int, after: int) -> Comparison:
    try:
        return compare(name, view.version(name, before), view.version(name, after))
    except RepositoryError as error:
        return Comparison(name, before, after, notes=(error.what,))


def compare(model: str, before: VersionView, after: VersionView) -> Comparison:
    """Two versions of one model; reads their files where a manifest does not tell."""
    notes: list[str] = []
    found = Comparison(model, before.version, after.version, files=tuple(_files(before, after)))
    old, new = before.manifest, after.manifest
    if old is None or new is None:
        without = [v.version for v in (before, after) if v.manifest is None]
        notes.append(f"version {wording.ranges(without)} has no manifest: config, source and answers are not known")
    else:
        configs = _configs(old, new, notes)
        if configs:
            found = dataclasses.replace(found, signature=tuple(_signature(*configs)), config=tuple(_config(*configs)))
        golden = compare_golden(old.golden, new.golden, notes)
        found = dataclasses.replace(found, source=tuple(_source(old, new)), golden=golden)
    graphs = _graphs(before.path, after.path, {c.name for c in found.files}, notes)
    if graphs:
        operators, weights = tuple(_operators(*graphs)), tuple(_weights(*graphs))
        found = dataclasses.replace(found, operators=operators, weights=weights)
    return dataclasses.replace(found, notes=tuple(notes))


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    """What differs between two tables, in the order of the names."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _files(before: VersionView, after: VersionView) -> Iterator[Change]:
    def read(version: VersionView) -> dict[str, str]:
        digests = digest_files(version.path)
        return {p: f"{wording.size((version.path / p).stat().st_size)}, {d[:8]}" for p, d in digests.items()}

    return changes(read(before), read(after))


def _configs(old: Manifest, new: Manifest, notes: list[str]) -> tuple[ModelConfigMessage, ModelConfigMessage] | None:
    try:
        return parse(old.config, "the first manifest"), parse(new.config, "the second manifest")
    except ConchError as error:
        notes.append(f"the configs cannot be compared: {error.what} in {error.where}: {error.got}")
        return None


def _signature(before: ModelConfigMessage, after: ModelConfigMessage) -> Iterator[Change]:
    def read(config: ModelConfigMessage) -> dict[str, str]:
        signature = signature_of(config)
        kinds = (("input", signature.inputs), ("output", signature.outputs))
        return {f"{k} {t.name}": t.describe(batched=signature.batched) for k, tensors in kinds for t in tensors}

    return changes(read(before), read(after))


def _config(before: ModelConfigMessage, after: ModelConfigMessage) -> Iterator[Change]:
    return changes(fields_of(before), fields_of(after))


def fields_of(message: Any, path: str = "") -> dict[str, str]:
    """A config's fields by path, e.g. `output[label].dims`: entries of a list go by name where they have one."""
    found: dict[str, str] = {}
    for descriptor, value in message.ListFields():
        name = f"{path}.{descriptor.name}" if path else descriptor.name
        if descriptor.message_type is None:
            found[name] = _plain(descriptor, value)
        elif descriptor.message_type.GetOptions().map_entry:
            for key in value:
                inner = value[key]
                entry = f"{name}[{key}]"
                found |= fields_of(inner, entry) if hasattr(inner, "ListFields") else {entry: str(inner)}
        elif hasattr(value, "ListFields"):
            found |= fields_of(value, name) or {name: "{}"}
        else:
            for index, item in enumerate(value):
                key = getattr(item, "name", "") or getattr(item, "model_name", "") or str(index)
                found |= fields_of(item, f"{name}[{key}]") or {f"{name}[{key}]": "{}"}
    return found


def _plain(descriptor: Any, value: Any) -> str:
    def one(item: Any) -> str:
        return descriptor.enum_type.values_by_number[item].name if descriptor.enum_type else str(item)

    repeated = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    return f"[{', '.join(map(one, value))}]" if repeated else one(value)


def _source(old: Manifest, new: Manifest) -> Iterator[Change]:
    """Source, frameworks, settings, packages and parity."""
    return changes(_provenance(old), _provenance(new))


def _provenance(manifest: Manifest) -> dict[str, str]:
    source = dict(manifest.source)
    frameworks = source.pop("versions", {})
    found = {f"source {k}": str(v) for k, v in source.items()}
    if isinstance(frameworks, Mapping):
        found |= {k: str(v) for k, v in frameworks.items()}
    found |= {f"setting {k}": str(v) for k, v in manifest.settings.items()}
    found |= {f"parity {p.output}": wording.number(p.largest_difference) for p in manifest.parity}
    if manifest.packages:
        found["packages"] = ", ".join(manifest.packages)
    if manifest.opset is not None:
        found["opset"] = f"{manifest.opset} (IR {manifest.ir_version})"
    return found


def _graphs(before: Path, after: Path, changed: set[str], notes: list[str]) -> tuple[Graph, Graph] | None:
    """The graphs of the ONNX file that both versions have, when it changed."""
    file = next((f for f in sorted(changed) if f.endswith(".onnx")), None)
    if file is None or not (before / file).is_file() or not (after / file).is_file():
        return None
    try:
        return read_graph(before / file), read_graph(after / file)
    except ConchError as error:
        notes.append(f"{error.what} ({file}){f': {error.fix}' if error.fix else f': {error.got}'}")
        return None


def _operators(before: Graph, after: Graph) -> Iterator[Change]:
    counts = ({k: str(v) for k, v in g.operators.items()} for g in (before, after))
    return changes(*counts)


def _weights(before: Graph, after: Graph) -> Iterator[Change]:
    """The sum of all weights, then those that came, went, or have another type or shape."""
    totals = [f"{wording.size(g.size_bytes)} in {len(g.weights)}" for g in (before, after)]
    if totals[0] != totals[1]:
        yield Change("all weights", *totals)
    yield from changes(*({k: str(w) for k, w in g.weights.items()} for g in (before, after)))


def compare_golden(
    before: tuple[Golden, ...], after: tuple[Golden, ...], notes: list[str]
) -> tuple[OutputDifference, ...]:
    """How the recorded answers to the same requests differ, output by output."""
    pairs = [(old, new) for old in before for new in after if old.inputs == new.inputs]
    if (before or after) and not pairs:
        notes.append("the versions have no golden request in common: their answers cannot be compared")
    differences = Differences()
    for old, new in pairs:
        differences.add(_arrays(old.outputs), _arrays(new.outputs))
    return differences.outputs()


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Array]:
    return {name: tensor_from_json(tensor) for name, tensor in tensors.items()}
