"""A pipeline: an ensemble, its members, and the tensors that run between them.

Pure: signatures in, a checked ensemble config out. Tensors are wired by name: a step's input is fed by the public input
or the earlier output of the same name, unless the step renames it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conch.errors import ConfigError, nearest
from conch.model_config import ModelConfig, ModelConfigMessage, add_tensors
from conch.tensor_spec import ModelSignature, TensorSpec


@dataclass(frozen=True)
class Step:
    """One member of an ensemble.

    ``input_map`` and ``output_map`` go from the member's tensor name to the ensemble's, for those that differ.
    ``version`` -1 follows the member's latest.
    """

    model: str
    signature: ModelSignature
    input_map: Mapping[str, str] = field(default_factory=dict)
    output_map: Mapping[str, str] = field(default_factory=dict)
    version: int = -1


@dataclass(frozen=True)
class Pipeline:
    """The ensemble ``name`` with its public inputs, the names of its public outputs, and its steps in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]

    def signature(self) -> ModelSignature:
        """The public signature, with every edge checked. Raises: ConfigError, naming the edge.

        The batch size is the smallest of the members'. A tensor that nobody writes, that is written twice, or that
        differs in type or shape between writer and reader is an error; so is a public input that nobody reads.
        """
        if not self.steps:
            raise ConfigError(f"pipeline {self.name} has no steps", where=self.name)
        written = {spec.name: (spec, f"{self.name} input") for spec in self.inputs}
        read: set[str] = set()
        for step in self.steps:
            self._check_maps(step)
            read |= self._feed(step, written)
            for spec in step.signature.outputs:
                tensor = step.output_map.get(spec.name, spec.name)
                if tensor in written:
                    raise ConfigError(
                        f"tensor {tensor} is written twice",
                        where=self.name,
                        got=f"{written[tensor][1]} and {step.model}",
                    )
                written[tensor] = (spec, step.model)
        self._check_ends(written, read)
        outputs = (_renamed(written[name][0], name) for name in self.outputs)
        sizes = [step.signature.max_batch_size for step in self.steps]
        return ModelSignature(self.inputs, tuple(outputs), min(sizes))

    def config(self) -> ModelConfigMessage:
        """The ensemble's ModelConfig message. Raises: ConfigError, as `signature` does."""
        signature = self.signature()
        config = ModelConfig(name=self.name, platform="ensemble", max_batch_size=signature.max_batch_size)
        add_tensors(config, signature)
        used = {step.input_map.get(t.name, t.name) for step in self.steps for t in step.signature.inputs}
        written = {spec.name for spec in self.inputs}
        for step in self.steps:
            message = config.ensemble_scheduling.step.add(model_name=step.model, model_version=step.version)
            for spec in step.signature.inputs:
                tensor = step.input_map.get(spec.name, spec.name)
                if tensor in written:
                    message.input_map[spec.name] = tensor
            written |= {step.output_map.get(t.name, t.name) for t in step.signature.outputs}
            for spec in step.signature.outputs:
                tensor = step.output_map.get(spec.name, spec.name)
                if tensor in used or tensor in self.outputs:
                    message.output_map[spec.name] = tensor
        return config

    def _check_maps(self, step: Step) -> None:
        signature = step.signature
        for kind, names, tensors in (
            ("input", step.input_map, signature.inputs),
            ("output", step.output_map, signature.outputs),
        ):
            known = [t.name for t in tensors]
            for name in names:
                if name not in known:
                    raise ConfigError(f"{step.model} has no {kind} {name} to map", where=self.name, expected=known)
        if signature.batched != self.steps[0].signature.batched:
            raise ConfigError(
                "a pipeline cannot mix members with and without a batch dimension",
                where=self.name,
                got=f"{self.steps[0].model} and {step.model}",
                fix="export both with max_batch_size > 0, or both with 0",
            )

    def _feed(self, step: Step, written: Mapping[str, tuple[TensorSpec, str]]) -> set[str]:
        """Check that every input of a step is written before it, and fits; returns the tensors it reads."""
        tensors = set()
        for spec in step.signature.inputs:
            tensor = step.input_map.get(spec.name, spec.name)
            if tensor not in written:
                if spec.optional:
                    continue
                close = nearest(tensor, written)
                raise ConfigError(
                    f"nothing writes tensor {tensor}, which {step.model} reads",
                    where=f"{self.name}: ? -> {step.model}.{spec.name}",
                    expected=", ".join(written),
                    fix=f"map {spec.name} to {close}" if close else None,
                )
            source, writer = written[tensor]
            if source.datatype != spec.datatype or not _fits(source.dims, spec.dims):
                batched = step.signature.batched
                raise ConfigError(
                    f"tensor {tensor} changes on its way",
                    where=f"{self.name}: {writer} -> {step.model}.{spec.name}",
                    got=source.describe(batched=batched),
                    expected=spec.describe(batched=batched),
                )
            tensors.add(tensor)
        return tensors

    def _check_ends(self, written: Mapping[str, tuple[TensorSpec, str]], read: set[str]) -> None:
        unread = [spec.name for spec in self.inputs if spec.name not in read]
        if unread:
            raise ConfigError(f"no step reads input {', '.join(unread)}", where=self.name)
        for name in self.outputs:
            if name not in written:
                raise ConfigError(f"no step writes output {name}", where=self.name, expected=", ".join(written))


def _renamed(spec: TensorSpec, name: str) -> TensorSpec:
    return TensorSpec(name, spec.datatype, spec.dims)


def _fits(source: Sequence[int], target: Sequence[int]) -> bool:
    """Whether Triton lets an edge run between these dims: the same rank, sizes equal or either one variable."""
    return len(source) == len(target) and all(s == t or -1 in (s, t) for s, t in zip(source, target, strict=True))
