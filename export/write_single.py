"""Put a pipeline into a stage as one model: python_backends/whole_pipeline, with its parts, weights and assets beside.

It answers as the ensemble of the same parts does, in one process and without hops between them. What is written is
pipeline.json, which says what stands where, and a config.pbtxt with the parameters of all parts:

instance_group     KIND_CPU: in NVIDIA's container an ensemble's graph runs in the native onnxruntime backend, which a
                   GPU is better left to. KIND_GPU, written by hand, works where onnxruntime-gpu is installed.
dynamic_batching   a few requests at a time, which saves trips between Triton and the process.
merge_rows         rows of equal shape run together; not those of dynamic int8, which would depend on each other.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conch.model_config import DynamicBatching, InstanceGroup, ModelSettings, build_config
from conch.pipeline import Pipeline, Step
from conch.repository import PYCACHE_GUARD, Stage
from conch.tensor_spec import TensorSpec, data_type
from export.check_graph import Checked
from export.options import ExportOptions
from export.python_code import add_files, copy_code, required_packages
from export.source import PipelineParts, PythonPart, Source
from export.write_model import StagedModel, ensemble, model_settings

BACKEND = "whole_pipeline"
GRAPH = "onnx_graph"
PLAN_FILE = "pipeline.json"

# As many requests as go to an instance in one trip, where so many wait. More would leave other instances idle, and
# answer the first of them late; but where one run answers all of them, twice as many pay.
REQUESTS_A_TRIP = 4


def write(stage: Stage, source: Source, options: ExportOptions, file: Path, checked: Checked) -> list[StagedModel]:
    """Stage the pipeline; ``file`` is moved in. Raises: ExportError, ConfigError, RepositoryError."""
    parts = source.pipeline
    assert parts is not None
    pipeline = ensemble(source, options, parts)
    python_parts = [part for part in (parts.preprocess, parts.postprocess) if part is not None]
    model = model_settings(source, options, checked)
    merges = source.dynamic_batching and options.max_batch_size > 1
    one_shape = all(-1 not in spec.dims for spec in source.signature.inputs)
    if merges:
        model = dataclasses.replace(model, parameters={**model.parameters, "merge_rows": "true"})
    settings = dataclasses.replace(
        model,
        backend="python",
        instance_groups=(InstanceGroup(options.instances, "KIND_CPU"),),
        dynamic_batching=_batching(options, one_run=merges and one_shape),
        parameters=_parameters(model, python_parts),
    )
    config = build_config(options.name, pipeline.signature(), settings)
    folder = stage.add_model(options.name, config)
    for path in sorted(file.parent.iterdir()):
        shutil.move(path, folder / path.name)
    add_files(folder, source.files)
    for part in python_parts:
        copy_code(part.backend, folder, without=("model.py",))
        add_files(folder, part.assets)
    copy_code(BACKEND, folder)
    plan = json.dumps(_plan(pipeline, parts), indent=1)
    add_files(folder, {PLAN_FILE: plan.encode("utf-8") + b"\n", PYCACHE_GUARD: b""})
    packages = required_packages(
        [BACKEND, *(part.backend for part in python_parts)], [line for part in python_parts for line in part.packages]
    )
    return [StagedModel(options.name, folder, config, "single", packages)]


def _batching(options: ExportOptions, *, one_run: bool) -> DynamicBatching | None:
    if options.max_batch_size < 2 and not options.max_queue:
        return None
    trips = (REQUESTS_A_TRIP, 2 * REQUESTS_A_TRIP) if one_run else (REQUESTS_A_TRIP,)
    sizes = tuple(sorted({max(1, min(trip, options.max_batch_size)) for trip in trips}))
    return DynamicBatching(preferred_batch_sizes=sizes, max_queue_size=options.max_queue)


def _parameters(model: ModelSettings, parts: Sequence[PythonPart]) -> dict[str, str]:
    """The parameters of all parts; those of one name get their roles in front."""
    by_role = {"model": model.parameters, **{part.role: part.parameters for part in parts}}
    count = Counter(key for parameters in by_role.values() for key in parameters)
    return {
        key if count[key] == 1 else f"{role}.{key}": value
        for role, parameters in by_role.items()
        for key, value in parameters.items()
    }


def _plan(pipeline: Pipeline, parts: PipelineParts) -> dict[str, Any]:
    """What python_backends/whole_pipeline/pipeline_plan.py reads."""
    roles = [(part.role, part.backend) if part else None for part in (parts.preprocess, None, parts.postprocess)]
    roles[1] = ("model", GRAPH)
    return {"steps": [_step(*role, step) for role, step in zip(filter(None, roles), pipeline.steps, strict=True)]}


def _step(role: str, part: str, step: Step) -> dict[str, Any]:
    return {
        "role": role,
        "part": part,
        "input": [_wire(spec, step.input_map) for spec in step.signature.inputs],
        "output": [_wire(spec, step.output_map) for spec in step.signature.outputs],
    }


def _wire(spec: TensorSpec, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": data_type(spec.datatype).config,
        "dims": list(spec.dims),
        "tensor": names.get(spec.name, spec.name),
    }
