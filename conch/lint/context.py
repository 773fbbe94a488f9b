"""What a rule may know beside the model: the target, its limits, and the other models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from conch.lint.model import ModelFolder, RootFolder
from conch.model_config import ModelConfigMessage
from conch.releases import DEFAULT_TARGET, Release, release


@dataclass(frozen=True)
class Context:
    """The target that the repository is meant for, and everything in it.

    None in ``cpus``, ``gpu``, ``latency_budget_ms`` or ``shm_bytes`` means that nobody said: a rule that needs it
    judges by what holds everywhere, or not at all. ``models`` has every model of every root by name (the first
    of a name), those that are not being linted among them.
    """

    release: Release = field(default_factory=lambda: release(DEFAULT_TARGET))
    cpus: int | None = None
    gpu: bool | None = None
    latency_budget_ms: float | None = None
    shm_bytes: int | None = None
    digests: bool = True
    roots: tuple[RootFolder, ...] = ()
    models: Mapping[str, ModelFolder] = field(default_factory=dict)

    @cached_property
    def used_by(self) -> Mapping[str, tuple[ModelConfigMessage, ...]]:
        """The configs of the ensembles that have a model as a step, by the model's name."""
        found: dict[str, list[ModelConfigMessage]] = {}
        for config in (m.config for m in self.models.values() if m.is_ensemble):
            for name in {step.model_name for step in config.ensemble_scheduling.step} if config is not None else ():
                found.setdefault(name, []).append(config)
        return {name: tuple(configs) for name, configs in found.items()}

    @property
    def members(self) -> Collection[str]:
        """The models that are steps of an ensemble: clients do not ask them."""
        return self.used_by.keys()
