"""`conch export llm`: its options, made into those of one engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from conch.errors import ExportError
from export.llm.options import ENGINES, SPECULATIONS, WEIGHT_FORMATS, LlmOptions, OpenVinoOptions, VllmOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

# The options that one engine alone has, and what they are when nobody gives them.
_OPENVINO = {"weight_format", "group_size", "prompts", "text", "adapters", "cache_gb", "max_queue", "threads"}
_VLLM = {"tensor_parallel", "quantization", "memory_share", "engine_options"}


@click.command()
@click.argument("path_or_id")
@click.option("--engine", type=click.Choice(ENGINES), default="openvino", show_default=True, help="CPUs, or GPUs.")
@click.option("--name", help="The model's name in the repository.  [default: from the source]")
@click.option(
    "--context-length", type=click.IntRange(min=8), help="Tokens of prompt and answer.  [default: the model's]"
)
@click.option("--chat-template", type=_FILE, help="A Jinja template in place of the model's own.")
@click.option("--prefix-caching/--no-prefix-caching", default=True, help="Keep what prompts have in common.")
@click.option("--speculation", type=click.Choice(SPECULATIONS), default="none", show_default=True, help="Guess ahead.")
@click.option(
    "--draft",
    metavar="PATH_OR_ID",
    help="What --speculation draft guesses with: a small model; for vllm, an EAGLE head or the like.",
)
@click.option(
    "--num-assistant-tokens", type=click.IntRange(min=1), default=4, show_default=True, help="Guesses at once."
)
@click.option(
    "--weight-format", type=click.Choice(WEIGHT_FORMATS), help="openvino: how weights are kept.  [default: int8]"
)
@click.option("--group-size", type=int, help="openvino: int4 weights that share a scale.  [default: by model]")
@click.option("--prompts", type=_FILE, help="openvino: a file of prompts, one a line, to compare with the source on.")
@click.option("--text", type=_FILE, help="openvino: a text to measure perplexity on.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME=PATH",
    help="openvino: a LoRA adapter, a file or PEFT's folder.",
)
@click.option("--cache-gb", type=click.IntRange(min=1), help="openvino: memory of the cache of keys and values.")
@click.option("--max-queue", type=click.IntRange(min=1), help="openvino: requests that may wait; more are refused.")
@click.option("--threads", type=click.IntRange(min=0), help="openvino: CPU threads.  [default: all cores]")
@click.option("--tensor-parallel", type=click.IntRange(min=1), help="vllm: GPUs that share the model.  [default: 1]")
@click.option("--quantization", help="vllm: how the checkpoint is quantized, e.g. awq, gptq, fp8.")
@click.option("--memory-share", type=float, help="vllm: the part of a GPU's memory that it takes.  [default: 0.9]")
@click.option("--option", "engine_options", multiple=True, metavar="NAME=VALUE", help="vllm: any other engine option.")
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default="model_repository",
    show_default=True,
    help="The folder that Triton serves.",
)
@click.option("--trial/--no-trial", default=True, help="Load and ask the version in a scratch Triton (openvino).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def llm(path_or_id: str, engine: str, name: str | None, as_json: bool, **given: Any) -> None:
    """Export a language model that generates text, from a folder or a hub's id.

    openvino converts it for CPUs, compares its tokens with transformers', and asks it in a scratch Triton. vllm writes
    the model folder of Triton's vLLM backend for GPUs and checks its options; running it takes NVIDIA's image and a
    GPU, so that it is not tried here.

    \b
    Examples:
      conch export llm ./my-llama --weight-format int4
      conch export llm Qwen/Qwen2.5-0.5B-Instruct --speculation prompt_lookup
      conch export llm ./my-llama --adapter support=./my-lora
      conch export llm Qwen/Qwen2.5-7B-Instruct --engine vllm --tensor-parallel 2 --memory-share 0.85
      conch export llm ./llama-awq --engine vllm --quantization awq --option max_num_seqs=128
    """
    options = options_of(engine, name or _default_name(path_or_id), given)
    options.check()
    from conch.terminal import print_json, progress
    from export.llm import convert, source, steps
    from export.report import print_report

    if engine == "openvino":
        convert.check_installed()
    try:
        with progress() as bars:
            bars.add_task("load", total=None)
            loaded = source.load(path_or_id, options)
        report = steps.run(loaded, options)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"exporting a language model needs the package {error.name}", got=error, fix=convert.INSTALL
        ) from error
    print_report(report)
    if as_json:
        print_json(report.to_json())


def options_of(engine: str, name: str, given: dict[str, Any]) -> LlmOptions:
    """The options of an engine. Raises: ExportError for those of the other one."""
    own, others = (_OPENVINO, _VLLM) if engine == "openvino" else (_VLLM, _OPENVINO)
    foreign = sorted(key for key in others if given[key] not in (None, ()))
    if foreign:
        raise ExportError(
            f"that is no option of --engine {engine}",
            got=", ".join(f"--{_SPELLED.get(key, key.replace('_', '-'))}" for key in foreign),
            fix=f"leave it out, or export with --engine {'vllm' if engine == 'openvino' else 'openvino'}",
        )
    chosen = {key: value for key, value in given.items() if key not in others and not (key in own and value is None)}
    if engine == "vllm":
        pairs = dict(_pair(text, "--option NAME=VALUE") for text in chosen.pop("engine_options"))
        return VllmOptions(name=name, **chosen, engine={key: _value(text) for key, text in pairs.items()})
    adapters = dict(_pair(text, "--adapter NAME=PATH") for text in chosen.pop("adapters"))
    return OpenVinoOptions(name=name, **chosen, adapters={key: Path(text) for key, text in adapters.items()})


_SPELLED = {"adapters": "adapter", "engine_options": "option"}


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ExportError("that is no name with a value", got=text, expected=form)
    return name, value


def _value(text: str) -> Any:
    """A value as JSON, or else as it stands."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _default_name(path_or_id: str) -> str:
    """A model name made of a path's or an id's last part."""
    last = path_or_id.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", last).strip("_-") or "model"
