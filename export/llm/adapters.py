"""A LoRA adapter as the engine takes it: one safetensors file, its scale multiplied in.

PEFT keeps the scale apart, in adapter_config.json: lora_alpha / r. OpenVINO GenAI does not read that file and takes the
weights as they are; taken so, an adapter would act too weakly or too strongly, without a word.
Sources: https://github.com/openvinotoolkit/openvino.genai/pull/2525 and
https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import math
from pathlib import Path

from conch.errors import ExportError
from export.from_huggingface_checkpoint import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def find(path: Path) -> Path:
    """The weights of an adapter: a file, or those in a folder that PEFT wrote. Raises: ExportError."""
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise ExportError(
            "that is no LoRA adapter",
            where=path,
            expected=f"a safetensors file, or a folder with {WEIGHTS} and {CONFIG}",
        )
    return file


def scale_of(file: Path) -> float:
    """By what PEFT multiplies an adapter; 1 where no adapter_config.json lies beside it. Raises: ExportError."""
    config = read_json(file.parent, CONFIG)
    if not config:
        return 1.0
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise ExportError(
                "the adapter has scales of its own for some layers",
                where=file.parent / CONFIG,
                got=f"{key}: {config[key]}",
                expected="one rank and one alpha",
                fix="merge it into the model (merge_and_unload), and export that",
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ExportError("the adapter does not say its rank and alpha", where=file.parent / CONFIG, got=(rank, alpha))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def write(path: Path, target: Path) -> None:
    """Write an adapter with its scale in its weights. Raises: ExportError."""
    from safetensors.torch import load_file, save_file

    file = find(path)
    scale = scale_of(file)
    tensors = load_file(file)
    ups = [name for name in tensors if "lora_B" in name]
    if not ups:
        raise ExportError("the file holds no LoRA weights", where=file, got=next(iter(tensors), "nothing"))
    save_file(tensors | {name: tensors[name] * scale for name in ups}, target)
