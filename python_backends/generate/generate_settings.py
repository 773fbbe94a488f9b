"""What config.pbtxt and the files of a version folder say about its engine. Knows nothing of Triton or OpenVINO."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Those in capitals are Triton's own.
PARAMETERS = (
    "adapters",
    "cache_size_gb",
    "enable_prefix_caching",
    "execution_mode",
    "max_ngram_size",
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_queue_size",
    "max_responses_per_second",
    "num_assistant_tokens",
    "speculation",
    "threads",
)
EXECUTION_MODES = ("steady", "accuracy", "performance")
SPECULATION = ("none", "prompt_lookup", "draft")
ADAPTERS = "adapters"
DRAFT = "draft"


@dataclass(frozen=True)
class Settings:
    """How one engine is opened. Where a number may be 0, 0 leaves the choice to the library.

    ``context_length`` is what the model can read, or what the cache can hold. ``stop_token_ids`` end every text, unless
    a request ignores them. ``adapters`` are names of files adapters/NAME.safetensors. ``max_num_seqs`` requests run at
    once and ``max_queue_size`` more may wait. ``max_responses_per_second`` is for all streams together: see
    generate_loop.py.
    """

    folder: Path
    context_length: int
    stop_token_ids: frozenset[int]
    adapters: tuple[str, ...] = ()
    cache_size_gb: int = 1
    enable_prefix_caching: bool = True
    execution_mode: str = "steady"
    max_ngram_size: int = 3
    max_num_batched_tokens: int = 256
    max_num_seqs: int = 64
    max_queue_size: int = 128
    max_responses_per_second: int = 500
    num_assistant_tokens: int = 4
    speculation: str = "none"
    threads: int = 0


def read_settings(folder: Path, parameters: Mapping[str, str]) -> Settings:
    """The settings of a version folder, with the ``parameters`` of config.pbtxt. Raises: ValueError."""
    given = {key: value for key, value in parameters.items() if not key.isupper()}
    for key in given:
        if key not in PARAMETERS:
            close = difflib.get_close_matches(key, PARAMETERS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"parameter {key}: got an unknown name, expected one of {', '.join(PARAMETERS)}{hint}")
    numbers = {
        name: _number(given[name], name, lowest)
        for name, lowest in (
            ("cache_size_gb", 1),
            ("max_ngram_size", 1),
            ("max_num_batched_tokens", 16),
            ("max_num_seqs", 1),
            ("max_queue_size", 0),
            ("max_responses_per_second", 1),
            ("num_assistant_tokens", 1),
            ("threads", 0),
        )
        if name in given
    }
    speculation = _one_of(given, "speculation", SPECULATION)
    if speculation == "draft" and not (folder / DRAFT / "openvino_model.xml").is_file():
        raise ValueError(f"parameter speculation: got draft, expected a model in {folder / DRAFT}")
    context_length, stop_token_ids = _read_limits(folder)
    cache_tokens = _cache_tokens(folder, numbers.get("cache_size_gb", Settings.cache_size_gb))
    return Settings(
        folder=folder,
        context_length=int(min(context_length, cache_tokens)),
        stop_token_ids=stop_token_ids,
        adapters=_adapters(folder, given.get("adapters")),
        enable_prefix_caching=_one_of(given, "enable_prefix_caching", ("true", "false")) == "true",
        execution_mode=_one_of(given, "execution_mode", EXECUTION_MODES),
        speculation=speculation,
        **numbers,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file. Raises: ValueError."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: got no JSON ({error}), expected an object") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: got {type(document).__name__}, expected an object")
    return document


def token_ids(value: object) -> frozenset[int]:
    """Token ids as Hugging Face's files write them: one number, a list, or nothing."""
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])


def _read_limits(folder: Path) -> tuple[int, frozenset[int]]:
    """Context length in tokens and stop tokens: generate.json's, or those of the model's own files."""
    generate, model = read_json(folder / "generate.json"), read_json(folder / "config.json")
    length = generate.get("context_length") or model.get("max_position_embeddings")
    if not isinstance(length, int) or length < 2:
        raise ValueError(f"{folder / 'generate.json'}: got context_length {length!r}, expected the number of tokens")
    stop = token_ids(generate.get("stop_token_ids"))
    generation = read_json(folder / "generation_config.json")
    return length, stop or token_ids(generation.get("eos_token_id")) or token_ids(model.get("eos_token_id"))


def _cache_tokens(folder: Path, cache_size_gb: int) -> float:
    """How long one request may be and still find room: one that is longer would wait for it for ever.

    Keys and values are taken as float32, which is the most that they need; a tenth is left to others. Infinite for a
    model whose config.json has other names than Llama's.
    """
    model = read_json(folder / "config.json")
    heads, width = model.get("num_attention_heads"), model.get("hidden_size")
    layers, cached_heads = model.get("num_hidden_layers"), model.get("num_key_value_heads") or heads
    if not (layers and heads and width):
        return math.inf
    bytes_per_token = 2 * 4 * layers * cached_heads * (model.get("head_dim") or width // heads)
    return int(0.9 * cache_size_gb * 2**30 / bytes_per_token)


def _adapters(folder: Path, listed: str | None) -> tuple[str, ...]:
    """The names in a comma list, or of all files when there is no list. Raises: ValueError."""
    there = sorted(path.stem for path in (folder / ADAPTERS).glob("*.safetensors"))
    if listed is None:
        return tuple(there)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    for name in names:
        if name not in there:
            raise ValueError(f"parameter adapters: got {name}, expected some of {', '.join(there) or 'none'}")
    return tuple(names)


def _one_of(given: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    """A parameter of a few values, the first where it is not given. Raises: ValueError."""
    value = given.get(name, known[0])
    if value not in known:
        raise ValueError(f"parameter {name}: got {value!r}, expected one of {', '.join(known)}")
    return value


def _number(value: str, name: str, lowest: int) -> int:
    if not value.isdecimal() or int(value) < lowest:
        raise ValueError(f"parameter {name}: got {value!r}, expected a whole number of at least {lowest}")
    return int(value)
