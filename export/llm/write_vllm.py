"""Stage a model of Triton's vLLM backend: config.pbtxt, and model.json with the options of vLLM's engine.

It is for NVIDIA's image with vLLM, on GPUs; nothing here runs it. The weights stay where they are: vLLM fetches an id
from a hub, or reads a folder that the container must see under the same path.
Sources: https://github.com/triton-inference-server/vllm_backend (README.md, src/model.py, samples/)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conch.model_config import InstanceGroup, ModelSettings, build_config
from conch.repository import Stage
from conch.tensor_spec import ModelSignature
from export.llm import vllm_engine
from export.llm.options import VllmOptions
from export.llm.source import LlmSource, generate_json
from export.llm.write_generate import OUTPUTS, VLLM_INPUTS
from export.python_code import add_files
from export.write_model import StagedModel

SIGNATURE = ModelSignature(VLLM_INPUTS, OUTPUTS, 0)


def model_json(source: LlmSource, options: VllmOptions) -> dict[str, Any]:
    """The options of vLLM's engine. Raises: ExportError for one that it does not have."""
    engine: dict[str, Any] = {
        "model": _weights(source),
        "max_model_len": source.facts.context_length,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": options.memory_share,
        "enable_prefix_caching": options.prefix_caching,
    }
    if source.provenance.get("revision"):  # the commit that was read here, whatever the hub has tomorrow
        engine["revision"] = source.provenance["revision"]
    if options.quantization is not None:
        engine["quantization"] = options.quantization
    if options.speculation != "none":
        engine["speculative_config"] = _speculation(options)
    engine |= options.engine
    vllm_engine.check(engine)
    return engine


def _weights(source: LlmSource) -> str:
    return str(source.provenance["model"] if source.provenance.get("revision") else source.folder.resolve())


def _speculation(options: VllmOptions) -> dict[str, Any]:
    """Source: https://docs.vllm.ai/en/v0.10.1.1/features/spec_decode.html"""
    tokens = {"num_speculative_tokens": options.num_assistant_tokens}
    if options.speculation == "prompt_lookup":
        return {"method": "ngram", "prompt_lookup_max": 4, "prompt_lookup_min": 2, **tokens}
    return {"model": options.draft, **tokens}


def write(stage: Stage, source: LlmSource, options: VllmOptions) -> StagedModel:
    """Stage the model. Raises: ExportError, RepositoryError."""
    engine = model_json(source, options)
    parameters = {"REPORT_CUSTOM_METRICS": "true", "context_length": str(source.facts.context_length)}
    if source.facts.chat_template is not None:  # for a gateway, which does not see the files
        parameters["chat_template"] = source.facts.chat_template
        parameters["eos_token"] = source.facts.eos_token
    # KIND_MODEL: vLLM itself chooses the GPUs, as it must for several.
    settings = ModelSettings(
        backend="vllm", instance_groups=(InstanceGroup(1, "KIND_MODEL"),), parameters=parameters, decoupled=True
    )
    config = build_config(options.name, SIGNATURE, settings)
    folder = stage.add_model(options.name, config)
    files: dict[str, bytes | Path] = {
        "model.json": (json.dumps(engine, indent=2) + "\n").encode(),
        "generate.json": generate_json(source.facts),
    }
    if source.facts.chat_template is not None:
        files["chat_template.jinja"] = source.facts.chat_template.encode()
    add_files(folder, files)
    return StagedModel(options.name, folder, config, "generate")


def notes(source: LlmSource, options: VllmOptions) -> tuple[str, ...]:
    """What a user must know to serve it."""
    gpus = f"{options.tensor_parallel} GPU{'s' if options.tensor_parallel > 1 else ''}"
    if source.provenance.get("revision"):
        return (f"for {gpus}: conch serve --mode docker --image {vllm_engine.IMAGE}",)
    folder = source.folder.resolve()
    return (
        f"for {gpus}: docker run {vllm_engine.IMAGE}, with the weights at the same path: --volume {folder}:{folder}:ro",
    )
