"""Stage a converted model as one decoupled model of Triton's Python backend: code, weights, tokenizer, template.

The tensors are those of Triton's vLLM backend, and `chat` besides.
Source: https://github.com/triton-inference-server/vllm_backend/blob/main/src/model.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from conch.errors import ExportError
from conch.model_config import InstanceGroup, ModelSettings, build_config
from conch.repository import PYCACHE_GUARD, Stage
from conch.tensor_spec import ModelSignature, TensorSpec
from export.llm import adapters
from export.llm.convert import convert
from export.llm.options import OpenVinoOptions
from export.llm.source import LlmSource, generate_json
from export.python_code import add_files, copy_code, required_packages
from export.write_model import StagedModel

BACKEND = "generate"

# What the converter writes, and serving reads. Its other files say the same to transformers.
KEPT = (
    "openvino_model.xml",
    "openvino_model.bin",
    "openvino_tokenizer.xml",
    "openvino_tokenizer.bin",
    "openvino_detokenizer.xml",
    "openvino_detokenizer.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
)

SWITCHES = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")

VLLM_INPUTS = (
    TensorSpec("text_input", "BYTES", (1,)),
    TensorSpec("stream", "BOOL", (1,), optional=True),
    TensorSpec("sampling_parameters", "BYTES", (1,), optional=True),
    TensorSpec("exclude_input_in_output", "BOOL", (1,), optional=True),
    *(TensorSpec(f"return_{name}", "BOOL", (1,), optional=True) for name in SWITCHES),
)
OUTPUTS = (
    TensorSpec("text_output", "BYTES", (-1,)),
    TensorSpec("finish_reason", "BYTES", (-1,)),
    TensorSpec("cumulative_logprob", "FP32", (-1,)),
    TensorSpec("logprobs", "BYTES", (-1,)),
    TensorSpec("num_input_tokens", "UINT32", (-1,)),
    TensorSpec("num_output_tokens", "UINT32", (-1,)),
)
SIGNATURE = ModelSignature((*VLLM_INPUTS, TensorSpec("chat", "BYTES", (1,), optional=True)), OUTPUTS, 0)


def settings(options: OpenVinoOptions) -> ModelSettings:
    """How the model is served. One instance: the engine batches by itself, and a second would share its cores."""
    chosen = {
        "cache_size_gb": options.cache_gb,
        "max_queue_size": options.max_queue,
        "threads": options.threads,
        "enable_prefix_caching": str(options.prefix_caching).lower(),
        "speculation": options.speculation,
        "num_assistant_tokens": options.num_assistant_tokens if options.speculation != "none" else None,
    }
    return ModelSettings(
        backend="python",
        instance_groups=(InstanceGroup(1, "KIND_CPU"),),
        parameters={key: str(value) for key, value in chosen.items() if value is not None},
        decoupled=True,
    )


def write(stage: Stage, source: LlmSource, options: OpenVinoOptions, converted: Path) -> StagedModel:
    """Stage the model; ``converted`` is moved in. Raises: ExportError, RepositoryError."""
    config = build_config(options.name, SIGNATURE, settings(options))
    folder = stage.add_model(options.name, config)
    copy_code(BACKEND, folder)
    for name in KEPT:
        if (converted / name).is_file():
            shutil.move(converted / name, folder / name)
    files: dict[str, bytes | Path] = {
        "generate.json": generate_json(source.facts, weight_format=options.weight_format),
    }
    if source.facts.chat_template is not None:
        files["chat_template.jinja"] = source.facts.chat_template.encode()
    add_files(folder, files)
    if options.adapters:
        (folder / "adapters").mkdir()
        for name, path in options.adapters.items():
            adapters.write(path, folder / "adapters" / f"{name}.safetensors")
    if options.draft is not None:
        write_draft(options.draft, folder, converted.parent / "draft")
    (folder / PYCACHE_GUARD).touch()
    return StagedModel(options.name, folder, config, "generate", required_packages([BACKEND], ()))


def write_draft(path_or_id: str, folder: Path, work: Path) -> None:
    """Convert the draft model into the version folder's draft/. Raises: ExportError when its tokens are others."""
    from export import from_huggingface_checkpoint as checkpoints

    checkpoint = checkpoints.find(path_or_id)
    checkpoints.check_files(checkpoint.folder, tokenizer=True)
    own = checkpoints.read_json(folder, "config.json").get("vocab_size")
    theirs = checkpoints.read_json(checkpoint.folder, "config.json").get("vocab_size")
    if own != theirs:
        raise ExportError(
            "the draft model has another vocabulary than the model that it is to guess for",
            where=path_or_id,
            got=f"{theirs} tokens",
            expected=f"{own} tokens",
            fix="take a small model of the same family",
        )
    convert(checkpoint.folder, work, weight_format="int8")
    (folder / "draft").mkdir()
    for name in KEPT:
        if (work / name).is_file():
            shutil.move(work / name, folder / "draft" / name)
