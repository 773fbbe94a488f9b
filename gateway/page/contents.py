"""What the page shows of the models: what the servers say, joined and cut to what one caller may see. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clients.replies import ModelState
from conch.tensor_spec import TensorSpec
from gateway.caller import Caller
from gateway.catalogue import ServedModel


@dataclass(frozen=True)
class VersionView:
    """One version, its state in Triton's word, and why."""

    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class StepView:
    """One step of an ensemble: the member's tensors, each with the ensemble's tensor that it is wired to."""

    model: str
    version: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelView:
    """One model; its kind and its tensors are empty while it is not ready.

    ``served`` is the version that answers unversioned requests. ``state`` is ready, loading, unloading or unavailable.
    ``part_of`` names the ensembles with a step of it. ``chat`` says whether it takes messages, and not text alone.
    ``labels`` are in the order of the scores.
    """

    name: str
    state: str
    versions: tuple[VersionView, ...]
    served: str = ""
    kind: str = ""
    backend: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch_size: int = 0
    decoupled: bool = False
    chat: bool = False
    steps: tuple[StepView, ...] = ()
    part_of: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def model_views(
    models: Iterable[ServedModel],
    states: Iterable[ModelState],
    caller: Caller,
    labels: Mapping[str, tuple[str, ...]],
) -> tuple[ModelView, ...]:
    """Every model that the caller may use, by name, those that are not ready among them."""
    served = {model.name: model for model in models}
    versions: dict[str, list[ModelState]] = {name: [] for name in served}
    for state in states:
        versions.setdefault(state.name, []).append(state)
    owners: dict[str, list[str]] = {}
    for model in served.values():
        for member in dict.fromkeys(step.model for step in model.steps):
            owners.setdefault(member, []).append(model.name)
    return tuple(
        _view(name, served.get(name), versions[name], tuple(sorted(owners.get(name, ()))), labels.get(name, ()))
        for name in sorted(versions)
        if caller.may_use(name)
    )


def _view(
    name: str,
    model: ServedModel | None,
    states: list[ModelState],
    part_of: tuple[str, ...],
    labels: tuple[str, ...],
) -> ModelView:
    newest_first = sorted(states, key=lambda state: int(state.version or 0), reverse=True)
    versions = tuple(VersionView(state.version, state.state, _without_trace(state.reason)) for state in newest_first)
    if model is None:
        return ModelView(name, _state(states), versions, part_of=part_of)
    return ModelView(
        name,
        "ready",
        versions,
        served=model.version,
        kind=model.kind,
        backend="ensemble" if model.steps else model.backend,
        inputs=model.signature.inputs,
        outputs=model.signature.outputs,
        max_batch_size=model.signature.max_batch_size,
        decoupled=model.decoupled,
        chat=any(spec.name == "chat" for spec in model.signature.inputs) or "chat_template" in model.parameters,
        steps=tuple(StepView(step.model, step.version, step.input_map, step.output_map) for step in model.steps),
        part_of=part_of,
        labels=labels,
    )


def _state(states: list[ModelState]) -> str:
    """One word for all versions: the best of them."""
    found = {state.state for state in states}
    return next((word.lower() for word in ("READY", "LOADING", "UNLOADING") if word in found), "unavailable")


def _without_trace(reason: str) -> str:
    """Why a version is not ready, without the stack trace that Triton's Python backend puts behind it."""
    return reason.partition("\n\nAt:\n")[0]
