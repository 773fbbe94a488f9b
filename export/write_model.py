"""Put the models of a version together in a stage: configs, weights, code, assets; then their manifests.

How a model is served is decided here, so that one config is right on a laptop and in a GPU container:

instance_group     a count, and no kind: Triton then places instances on the GPUs it finds, or else on the CPU. The kind
                   is KIND_CPU where a GPU has no kernels for the graph (int8, ai.onnx.ml, strings) and for Python code.
dynamic_batching   with delay 0: what waits is merged, and nothing waits for it; none where the source says so.
queue limit        only as --max-queue says, on the model and not on the parts: the queue grows in front of the slowest.
                   None by default, as it takes two instances or more (see conch.model_config.DynamicBatching).
threads            one instance takes all cores, ONNX Runtime's default, so nothing is said. Several share them:
                   ceil(cores / instances) each, of the machine that exported.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from conch import __version__
from conch.errors import ExportError
from conch.manifest import Golden, Manifest, Parity, digest_files
from conch.model_config import DynamicBatching, InstanceGroup, ModelConfigMessage, ModelSettings, build_config, render
from conch.pipeline import Pipeline, Step
from conch.repository import PYCACHE_GUARD, Stage
from conch.tensor_spec import ModelSignature
from export.check_graph import Checked
from export.options import ExportOptions
from export.python_code import add_files, copy_code, required_packages
from export.source import PipelineParts, PythonPart, Source

# Distribution -> the module that it installs.
FRAMEWORKS = {
    "torch": "torch",
    "transformers": "transformers",
    "scikit-learn": "sklearn",
    "skl2onnx": "skl2onnx",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
}


@dataclass(frozen=True)
class StagedModel:
    """One model of the version: its name, its folder N in the stage, its config and what its code needs.

    ``role`` is that of a part, or "pipeline" for the ensemble, or "single" for a pipeline that is one model.
    """

    name: str
    folder: Path
    config: ModelConfigMessage
    role: str
    packages: tuple[str, ...] = ()


def write(stage: Stage, source: Source, options: ExportOptions, file: Path, checked: Checked) -> list[StagedModel]:
    """Stage every model of the version, members first; ``file`` is moved in. Raises: ExportError, RepositoryError."""
    parts = source.pipeline
    name = options.name if parts is None else f"{options.name}_model"
    if options.max_queue and not source.dynamic_batching:
        raise ExportError(
            "--max-queue needs Triton's batcher, which would merge requests that this model must answer apart",
            got=f"--max-queue {options.max_queue} --precision {options.precision}",
            fix="--pipeline single where there is one: it takes several requests and answers them apart",
        )
    config = build_config(name, source.signature, model_settings(source, options, checked))
    model = StagedModel(name, stage.add_model(name, config), config, "model")
    for path in sorted(file.parent.iterdir()):
        shutil.move(path, model.folder / path.name)
    add_files(model.folder, source.files)
    if parts is None:
        return [model]
    before = [_write_python(stage, options, parts.preprocess)] if parts.preprocess else []
    after = [_write_python(stage, options, parts.postprocess)] if parts.postprocess else []
    config = ensemble(source, options, parts).config()
    folder = stage.add_model(options.name, config)
    return [*before, model, *after, StagedModel(options.name, folder, config, "pipeline")]


def model_settings(source: Source, options: ExportOptions, checked: Checked) -> ModelSettings:
    """How the model itself is served."""
    cpu_only = checked.cpu_only or options.precision == "int8"
    parameters = dict(source.parameters)
    if options.instances > 1:
        threads = math.ceil((os.cpu_count() or 1) / options.instances)
        key = "intra_op_thread_count" if options.format == "onnx" else "INTRA_OP_THREAD_COUNT"
        parameters.setdefault(key, str(threads))
    return ModelSettings(
        backend="onnxruntime" if options.format == "onnx" else "pytorch",
        instance_groups=(InstanceGroup(options.instances, "KIND_CPU" if cpu_only else "KIND_AUTO"),),
        dynamic_batching=_batching(source.signature, options.max_queue) if source.dynamic_batching else None,
        parameters=parameters,
        # An optimized file is as it should run on a CPU: at load, no fusion is to be done again, or done after all.
        graph_level=-1 if options.optimize and cpu_only else None,
    )


def _batching(signature: ModelSignature, max_queue: int = 0) -> DynamicBatching | None:
    if signature.max_batch_size < 2 and not max_queue:
        return None
    return DynamicBatching(max_queue_size=max_queue)


def ensemble(source: Source, options: ExportOptions, parts: PipelineParts) -> Pipeline:
    """The pipeline of the models NAME_preprocess, NAME_model, NAME_postprocess."""
    steps = []
    if parts.preprocess:
        steps.append(_step(options, parts.preprocess))
    steps.append(
        Step(f"{options.name}_model", source.signature, dict(parts.model_input_map), dict(parts.model_output_map))
    )
    if parts.postprocess:
        steps.append(_step(options, parts.postprocess))
    return Pipeline(options.name, parts.inputs, parts.outputs, tuple(steps))


def _step(options: ExportOptions, part: PythonPart) -> Step:
    return Step(f"{options.name}_{part.role}", part.signature, dict(part.input_map), dict(part.output_map))


def with_rules(source: Source, options: ExportOptions) -> Source:
    """The source with the file of --rules among its postprocessing's assets. Raises: ExportError when it has none.

    A source whose model applies the rules itself has the file already.
    """
    if options.rules is None or "rules.yaml" in source.files:
        return source
    parts = source.pipeline
    if parts is None or parts.postprocess is None:
        raise ExportError(
            "--rules needs a model with labels", where=options.rules, got="a model without postprocessing"
        )
    assets: Mapping[str, bytes | Path] = {**parts.postprocess.assets, "rules.yaml": options.rules}
    postprocess = dataclasses.replace(parts.postprocess, assets=assets)
    return dataclasses.replace(source, pipeline=dataclasses.replace(parts, postprocess=postprocess))


def _write_python(stage: Stage, options: ExportOptions, part: PythonPart) -> StagedModel:
    """Stage a Python model: the backend's code, its assets, and the guard against bytecode."""
    name = f"{options.name}_{part.role}"
    settings = ModelSettings(
        backend="python",
        instance_groups=(InstanceGroup(part.instances, "KIND_CPU"),),
        dynamic_batching=_batching(part.signature),
        parameters=part.parameters,
    )
    config = build_config(name, part.signature, settings)
    folder = stage.add_model(name, config)
    copy_code(part.backend, folder)
    add_files(folder, part.assets)
    (folder / PYCACHE_GUARD).touch()
    return StagedModel(name, folder, config, part.role, required_packages([part.backend], part.packages))


def write_manifests(
    models: Sequence[StagedModel],
    source: Source,
    options: ExportOptions,
    checked: Checked,
    parity: tuple[Parity, ...],
    served: tuple[Parity, ...],
    golden: Mapping[str, tuple[Golden, ...]],
) -> None:
    """Write manifest.json into each staged version folder.

    ``parity`` is the model's, ``served`` the whole pipeline's where it was tried; ``golden`` is by model name.
    """
    rows = {"model": parity, "pipeline": served, "single": (*parity, *served)}
    created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for model in models:
        has_graph = model.role in ("model", "single")
        Manifest(
            model=model.name,
            created_at=created_at,
            source={**_plain(source.provenance), "versions": versions()},
            files=digest_files(model.folder),
            config=render(model.config),
            settings=options.settings(),
            parity=rows.get(model.role, ()),
            golden=golden.get(model.name, ()),
            packages=model.packages,
            opset=checked.opset if has_graph else None,
            ir_version=checked.ir_version if has_graph else None,
        ).write(model.folder)


def versions() -> dict[str, str]:
    """The versions of conch and of the frameworks that took part in this export: those that it imported."""
    taking_part = [name for name, module in FRAMEWORKS.items() if module in sys.modules]
    return {"conch": __version__, **{name: metadata.version(name) for name in taking_part if _installed(name)}}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:  # onnxruntime-gpu installs the module onnxruntime
        return False
    return True


def _plain(value: Any) -> Any:
    """Provenance as JSON takes it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
