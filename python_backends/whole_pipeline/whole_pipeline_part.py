"""A pipeline in one process: its parts in order, with arrays handed from one to the next and no hop between them.

On a CPU each row of a request goes its own way: padding a short text to the length of a long one costs more than a
batch saves, and the answer to a row depends on no other (dynamic int8 scales a batch by its largest value). Rows that
come to the graph in one shape may run together (see onnx_graph_part.py). On a GPU all rows of all requests that Triton
merged run as one batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pipeline_part import Answer, Array, Ask, Part, PartSettings, Refusal, as_one, shared_out
from pipeline_plan import PLAN_FILE, PlannedStep, check_plan, read_plan, share_out

# The part that is not a folder of its own: it needs all of the config.
GRAPH = "onnx_graph"

State = dict[str, Array] | Refusal


@dataclass(frozen=True)
class Step:
    """A part, and between which tensors of the pipeline it stands; ``wanted`` of its outputs are read by someone."""

    part: Part
    reads: tuple[tuple[str, str], ...]
    writes: tuple[tuple[str, str], ...]
    wanted: tuple[str, ...]

    def answer(self, states: Sequence[Mapping[str, Array]]) -> list[Answer]:
        """What the part adds to each request's tensors, by the pipeline's names."""
        asks = [Ask({name: s[tensor] for name, tensor in self.reads if tensor in s}, self.wanted) for s in states]
        return [
            answer if isinstance(answer, Refusal) else {tensor: answer[name] for name, tensor in self.writes}
            for answer in self.part.answer(asks)
        ]


class WholePipeline:
    """All parts of a pipeline."""

    def __init__(self, config: Mapping[str, Any], folder: Path, *, gpu: bool, device_id: int) -> None:
        """Read the plan and load every part. ``config`` is Triton's. Raises: ValueError, LoadFailed."""
        if config["max_batch_size"] < 1:
            raise ValueError(f"max_batch_size: got {config['max_batch_size']}, expected 1 or more")
        outputs = {tensor["name"]: tuple(tensor["dims"]) for tensor in config["output"]}
        plan = read_plan(folder / PLAN_FILE)
        check_plan(plan, [tensor["name"] for tensor in config["input"]], outputs)
        given = {k: v["string_value"] for k, v in config.get("parameters", {}).items() if not k.isupper()}
        modules = {step.role: importlib.import_module(f"{step.part}_part") for step in plan}
        shares = share_out(given, {role: module.PARAMETERS for role, module in modules.items()})
        self.notes: tuple[str, ...] = ()
        self._steps: list[Step] = []
        for index, step in enumerate(plan):
            part: Part
            if step.part == GRAPH:
                own = graph_config(config, step, shares[step.role])
                part = graph = modules[step.role].OnnxGraph(own, folder, gpu=gpu, device_id=device_id)
                self.notes += graph.notes
            else:
                part = modules[step.role].Part(settings_of(step, folder, shares[step.role]))
            read_later = {wire.tensor for later in plan[index + 1 :] for wire in later.inputs} | set(outputs)
            writes = tuple((wire.name, wire.tensor) for wire in step.outputs if wire.tensor in read_later)
            reads = tuple((wire.name, wire.tensor) for wire in step.inputs)
            self._steps.append(Step(part, reads, writes, tuple(name for name, _ in writes)))
        self._outputs = tuple(outputs)
        self._merge = gpu
        # Answers of any size may differ in it from row to row, and then no array holds them all without padding.
        self._split = not gpu and all(-1 not in dims for dims in outputs.values())

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order; one that a part refuses fails alone."""
        if self._merge and len(asks) > 1:
            return self._answer_merged(asks)
        groups = [split_rows(ask.tensors) if self._split else [ask.tensors] for ask in asks]
        states = iter(self._run(row for group in groups for row in group))
        return [self._join(ask, [next(states) for _ in group]) for ask, group in zip(asks, groups, strict=True)]

    def _run(self, requests: Iterable[Mapping[str, Array]]) -> list[State]:
        """Every tensor of each request after the last step, or the refusal of the step that it came to."""
        states: list[State] = [dict(request) for request in requests]
        for step in self._steps:
            going = [(index, state) for index, state in enumerate(states) if not isinstance(state, Refusal)]
            for (index, state), answer in zip(going, step.answer([state for _, state in going]), strict=True):
                states[index] = answer if isinstance(answer, Refusal) else {**state, **answer}
        return states

    def _join(self, ask: Ask, rows: Sequence[State]) -> Answer:
        """The answer to a request from those to its rows."""
        found = [row for row in rows if not isinstance(row, Refusal)]
        if len(found) < len(rows):
            refusal = next(row for row in rows if isinstance(row, Refusal))
            # The parts count rows from the start of what they get: as a whole, they name the right one.
            (whole,) = [refusal] if len(rows) == 1 else self._run([ask.tensors])
            return whole if isinstance(whole, Refusal) else refusal
        if len(found) == 1:
            return {name: found[0][name] for name in ask.wanted}
        return {name: np.concatenate([row[name] for row in found]) for name in ask.wanted}

    def _answer_merged(self, asks: Sequence[Ask]) -> list[Answer]:
        """Run all requests as one; each by itself where they cannot be one, or one of them spoils it."""
        shapes = {tuple(sorted((name, array.shape[1:]) for name, array in ask.tensors.items())) for ask in asks}
        if len(shapes) == 1:
            (state,) = self._run([as_one(asks).tensors])
            if not isinstance(state, Refusal):
                parts = shared_out({name: state[name] for name in self._outputs}, asks)
                if parts is not None:
                    return [{n: part[n] for n in ask.wanted} for ask, part in zip(asks, parts, strict=True)]
        return [self._join(ask, [state]) for ask, state in zip(asks, self._run(a.tensors for a in asks), strict=True)]


def split_rows(tensors: Mapping[str, Array]) -> list[Mapping[str, Array]]:
    """A request as requests of one row each; itself where it has one, or none."""
    count = len(next(iter(tensors.values()), ()))
    if count < 2:
        return [tensors]
    return [{name: array[row : row + 1] for name, array in tensors.items()} for row in range(count)]


def settings_of(step: PlannedStep, folder: Path, parameters: Mapping[str, str]) -> PartSettings:
    """What a part is told that has no config.pbtxt of its own."""
    return PartSettings(
        folder=folder,
        inputs={wire.name: wire.dims for wire in step.inputs},
        outputs={wire.name: wire.dims for wire in step.outputs},
        parameters=parameters,
    )


def graph_config(config: Mapping[str, Any], step: PlannedStep, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The pipeline's config with the tensors and parameters of its graph."""
    inputs, outputs = (
        [{"name": wire.name, "data_type": wire.datatype, "dims": list(wire.dims)} for wire in wires]
        for wires in (step.inputs, step.outputs)
    )
    own = {key: {"string_value": value} for key, value in parameters.items()}
    # Triton has put the name of the code, model.py, there.
    return {**config, "default_model_filename": "", "input": inputs, "output": outputs, "parameters": own}
