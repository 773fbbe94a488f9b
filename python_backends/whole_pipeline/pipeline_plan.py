"""What a whole pipeline is made of, read from pipeline.json, and which of its parameters belong to which part.

    {"steps": [
      {"role": "preprocess", "part": "text_tokenizer",
       "input": [{"name": "text", "data_type": "TYPE_STRING", "dims": [1], "tensor": "text"}],
       "output": [{"name": "input_ids", "data_type": "TYPE_INT64", "dims": [-1], "tensor": "input_ids"}]},
      {"role": "model", "part": "onnx_graph", ...},
      ...
    ]}

Steps run in this order. ``name`` is a tensor's name within its part, ``tensor`` its name in the pipeline: what a step
writes under a name is what later steps read under it, as in an ensemble. Dims leave out the batch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_part import check_parameters

PLAN_FILE = "pipeline.json"


@dataclass(frozen=True)
class Wire:
    """A tensor of a part, and what it is called in the pipeline."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    tensor: str


@dataclass(frozen=True)
class PlannedStep:
    """One part at its place: ``part`` is the module PART_part."""

    role: str
    part: str
    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]


def read_plan(path: Path) -> tuple[PlannedStep, ...]:
    """The steps of a pipeline.json. Raises: ValueError, naming the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            PlannedStep(step["role"], step["part"], _wires(step["input"]), _wires(step["output"]))
            for step in document["steps"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error


def _wires(tensors: Sequence[Mapping[str, Any]]) -> tuple[Wire, ...]:
    return tuple(Wire(t["name"], t["data_type"], tuple(t["dims"]), t["tensor"]) for t in tensors)


def check_plan(steps: Sequence[PlannedStep], inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raise ValueError unless every tensor is written before it is read, and the public outputs are written."""
    written = set(inputs)
    for step in steps:
        for wire in step.inputs:
            if wire.tensor not in written:
                got = ", ".join(sorted(written))
                raise ValueError(f"{PLAN_FILE}: got a {step.role} that reads {wire.tensor}, expected one of {got}")
        written |= {wire.tensor for wire in step.outputs}
    for name in outputs:
        if name not in written:
            raise ValueError(f"output {name}: got no step in {PLAN_FILE} that writes it, expected one")


def share_out(parameters: Mapping[str, str], known: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
    """Each role's parameters, by its own names. ``known`` are the names that the part of each role has.

    A name that several parts have is written with its role in front: ``postprocess.top_k``. Raises: ValueError for a
    name that no part has, or several.
    """
    shares: dict[str, dict[str, str]] = {role: {} for role in known}
    for key, value in parameters.items():
        role, dot, name = key.partition(".")
        if not dot or role not in known:
            name = key
            roles = [each for each, names in known.items() if key in names]
            if not roles:
                check_parameters([key], [name for names in known.values() for name in names])
            if len(roles) > 1:
                raise ValueError(f"parameter {key}: got one for several parts, expected {roles[0]}.{key} or its like")
            role = roles[0]
        shares[role][name] = value
    return shares
