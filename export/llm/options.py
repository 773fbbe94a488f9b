"""What a user can ask of the export of a language model, for either engine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from export.llm import adapters, vllm_engine

# It becomes a file's name.
_ADAPTER_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*$")

ENGINES = ("openvino", "vllm")
WEIGHT_FORMATS = ("fp16", "int8", "int4")
SPECULATIONS = ("none", "prompt_lookup", "draft")


@dataclass(frozen=True)
class LlmOptions:
    """What both engines take.

    ``context_length`` None takes the checkpoint's. ``chat_template`` is a Jinja file in place of the checkpoint's own.
    ``speculation`` "draft" guesses with the model ``draft`` (a path or an id), "prompt_lookup" with the words of the
    prompt; ``num_assistant_tokens`` is how many it guesses at a time.
    """

    name: str
    repository: Path = Path("model_repository")
    trial: bool = True
    context_length: int | None = None
    chat_template: Path | None = None
    prefix_caching: bool = True
    speculation: str = "none"
    draft: str | None = None
    num_assistant_tokens: int = 4

    def check(self) -> None:
        """Raise ExportError for values that exclude each other, before any work is done."""
        _one_of("--speculation", self.speculation, SPECULATIONS)
        if (self.speculation == "draft") != (self.draft is not None):
            raise ExportError(
                "--draft names the model that --speculation draft guesses with",
                got=f"--speculation {self.speculation}" + (f" --draft {self.draft}" if self.draft else ""),
                fix="give both, or neither",
            )

    def settings(self) -> dict[str, Any]:
        """The options as JSON values, for the manifest; paths as they were given."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class OpenVinoOptions(LlmOptions):
    """A model for CPUs, served by OpenVINO GenAI in Triton's Python backend.

    ``group_size`` is how many int4 weights share a scale; None takes what optimum-intel knows to suit the model.
    ``prompts`` (a line each) and ``text`` are files to compare with the source on. ``adapters`` are LoRA adapters by
    name, files or PEFT's folders. ``cache_gb`` is the memory of the cache of keys and values, ``max_queue`` how many
    requests may wait before more are refused, ``threads`` 0 all cores: None leaves it to the backend.
    """

    weight_format: str = "int8"
    group_size: int | None = None
    prompts: Path | None = None
    text: Path | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    cache_gb: int | None = None
    max_queue: int | None = None
    threads: int | None = None

    def check(self) -> None:
        """See `LlmOptions.check`."""
        super().check()
        _one_of("--weight-format", self.weight_format, WEIGHT_FORMATS)
        for name, path in self.adapters.items():
            if not _ADAPTER_NAME.fullmatch(name):
                raise ExportError("that is no name for an adapter", got=name, expected="letters, digits, '-' and '_'")
            adapters.scale_of(adapters.find(path))


@dataclass(frozen=True)
class VllmOptions(LlmOptions):
    """A model for GPUs, served by Triton's vLLM backend in NVIDIA's image.

    ``memory_share`` is the part of each GPU's memory that vLLM takes, from 0 to 1. ``engine`` are further options of
    its engine by name, as JSON values.
    """

    tensor_parallel: int = 1
    quantization: str | None = None
    memory_share: float = 0.9
    engine: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """See `LlmOptions.check`."""
        super().check()
        for name in self.engine:
            if name in vllm_engine.OWN:
                raise ExportError(
                    f"--option {name} has an option of its own here", got=name, fix=f"use {vllm_engine.OWN[name]}"
                )
        given = {"gpu_memory_utilization": self.memory_share, "quantization": self.quantization, **self.engine}
        vllm_engine.check({name: value for name, value in given.items() if value is not None})


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ExportError(
            "an option has a value that export does not know",
            got=f"{option} {value}",
            expected=f"{option} {'|'.join(known)}",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
