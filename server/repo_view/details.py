"""`conch repo show`: all that is known of one model, and of one of its versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conch.errors import ConchError
from conch.manifest import Manifest
from conch.model_config import render, signature_of
from conch.tensor_spec import describe_tensors
from server.repo_view import wording
from server.repo_view.contents import ModelView, RepositoryView, VersionView
from server.repo_view.listing import model_document

# What a terminal shows of a tensor's values.
_SHOWN_VALUES = 4
_SHOWN_TEXT = 48


@dataclass(frozen=True)
class Fact:
    """One line: what, and what is known of it."""

    name: str
    text: str


def headline(model: ModelView) -> str:
    """Name, kind, and what serves."""
    if model.serves is None:
        served = "serves no version"
    else:
        where = "READY" if model.live else "by the files"
        served = f"serves version {model.serves} ({where})"
    return f"{model.name}: {model.kind}, {served}"


def facts(view: RepositoryView, model: ModelView) -> Iterator[Fact]:
    """What holds for the model, whatever the version."""
    yield Fact("Folder", str(model.path))
    if model.problem:
        yield Fact("Problem", model.problem)
    if model.config is not None:
        yield from _signature(model)
    if model.config is not None and model.members:
        yield Fact("Members", ", ".join(_step(view, step) for step in model.config.ensemble_scheduling.step))
    if model.used_by:
        yield Fact("Used by", ", ".join(model.used_by))
    if model.side_of:
        yield Fact("Beside", f"{model.side_of}: it serves a version that unversioned requests do not get")
    if model.held:
        before = model.held.policy or "the default"
        yield Fact("Held", f"at version {model.held.version} until the next publish or promote; before: {before}")
    for name, alias in sorted((model.aliases or {}).items()):
        share = f", {wording.share(alias.weight)} of the traffic" if alias.weight else ""
        where = "" if alias.model == model.name else f", served as {alias.model}"
        yield Fact(f"@{name}", f"version {alias.version}{where}{share}")


def _signature(model: ModelView) -> Iterator[Fact]:
    try:
        signature = signature_of(model.config)
    except ConchError as error:
        yield Fact("Problem", f"{error.what}: {error.got}")
        return
    if signature.inputs or signature.outputs:
        yield Fact("Inputs", describe_tensors(signature.inputs, batched=signature.batched))
        yield Fact("Outputs", describe_tensors(signature.outputs, batched=signature.batched))
        yield Fact("Batches", f"up to {signature.max_batch_size}" if signature.batched else "none")
    else:
        yield Fact("Signature", "the config does not say: Triton asks the model's file")


def _step(view: RepositoryView, step: Any) -> str:
    pinned = f" (pinned to {step.model_version})" if step.model_version > 0 else ""
    return f"{step.model_name}{pinned}" + ("" if step.model_name in view.models else " (missing)")


VERSION_COLUMNS = ("Version", "State", "Size", "Created", "Source", "Largest difference", "Signed")


def version_row(view: RepositoryView, model: ModelView, version: VersionView) -> tuple[str, ...]:
    """One line of the table of versions; the size is that of all parts of a pipeline."""
    size_bytes = sum(v.size_bytes for m in view.parts(model.name) for v in m.versions if v.version == version.version)
    return (
        str(version.version),
        _version_state(model, version),
        wording.size(size_bytes),
        wording.minute(version.created_at),
        version.source or wording.NOTHING,
        _parity_in_short(version.manifest),
        "yes" if version.signed else "no",
    )


def _version_state(model: ModelView, version: VersionView) -> str:
    if not model.live:
        return "serves" if version.version == model.due else "loads" if version.loads else "kept"
    if version.version == model.serves:
        return "READY, serves"
    return version.state or "kept"


def _parity_in_short(manifest: Manifest | None) -> str:
    """The difference from the source that comes nearest to its tolerance."""
    if manifest is None or not manifest.parity:
        return wording.NOTHING
    worst = max(manifest.parity, key=lambda p: p.largest_difference / p.tolerance if p.tolerance else 0.0)
    return f"{wording.number(worst.largest_difference)} (of {wording.number(worst.tolerance)})"


def version_facts(version: VersionView) -> Iterator[Fact]:
    """What the manifest of a version tells."""
    if version.problem:
        yield Fact("Manifest", version.problem)
    if version.reason and version.state != "READY":
        yield Fact("Reason", version.reason)
    if version.manifest is None:
        if not version.problem:
            yield Fact("Manifest", "none: the version was made by hand, and nothing is known of it")
        return
    manifest = version.manifest
    frameworks = manifest.source.get("versions")
    own = {k: v for k, v in manifest.source.items() if k not in ("kind", "versions")}
    yield Fact("Source", ": ".join(filter(None, (version.source, _pairs(own)))))
    if isinstance(frameworks, Mapping):
        yield Fact("Frameworks", ", ".join(f"{k} {v}" for k, v in frameworks.items()))
    settings = _pairs(manifest.settings)
    if settings:
        yield Fact("Settings", settings)
    if manifest.opset is not None:
        yield Fact("ONNX", f"opset {manifest.opset}, IR {manifest.ir_version}")
    yield Fact("Packages", ", ".join(manifest.packages) or "none")
    yield Fact("Files", ", ".join(manifest.files) or "none")


def _pairs(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in table.items() if v not in (None, "", [], {}))


PARITY_COLUMNS = ("Output", "Samples", "Largest difference", "Allowed", "Cosine", "Same top 1")


def parity_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """How each output compares with the source's."""
    return [
        (
            p.output,
            str(p.samples),
            wording.number(p.largest_difference),
            wording.number(p.tolerance),
            wording.NOTHING if p.cosine is None else f"{p.cosine:.6f}",
            wording.NOTHING if p.top1_agreement is None else f"{p.top1_agreement:.1%}",
        )
        for p in manifest.parity
    ]


def golden_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The requests that are asked again after a load, with their answers, shortened."""
    return [(_tensors(golden.inputs), _tensors(golden.outputs)) for golden in manifest.golden]


def _tensors(tensors: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} {_values(tensor)}" for name, tensor in tensors.items())


def _values(tensor: Mapping[str, Any]) -> str:
    data = tensor["data"]
    shown = [_value(v) for v in data[:_SHOWN_VALUES]]
    rest = len(data) - len(shown)
    text = ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
    return text if len(data) == 1 else f"{tensor['shape']}: {text}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return wording.number(value)
    text = str(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 3]}..."


def document(view: RepositoryView, model: ModelView, version: VersionView | None) -> dict[str, Any]:
    """All of it for programs: the manifest as it is, with its golden requests whole."""
    return {
        **model_document(model),
        "repository": str(view.root),
        "server": view.live.url if view.live else None,
        "config": None if model.config is None else render(model.config),
        "history": [dataclasses.asdict(s) for s in model.history],
        "version": version.version if version else None,
        "manifest": dataclasses.asdict(version.manifest) if version and version.manifest else None,
    }
