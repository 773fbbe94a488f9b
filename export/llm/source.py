"""A language model as the steps take it: a whole checkpoint on this disk, and real prompts to compare on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from export import from_huggingface_checkpoint as checkpoints
from export.llm.options import LlmOptions, OpenVinoOptions
from export.llm.texts import QUESTIONS, TEXT

Message = Mapping[str, str]

# Where architectures keep the number of positions that they were trained for; the first that is there counts.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")


@dataclass(frozen=True)
class LlmSource:
    """A checkpoint as save_pretrained writes it, its facts, and what it is compared on.

    ``questions`` are asked as chats where the model has a chat template, and as plain prompts otherwise; ``text`` is
    what perplexity is measured on. ``provenance`` goes into the manifest. ``held`` is kept as long as the source is: a
    temporary folder's owner.
    """

    folder: Path
    facts: ModelFacts
    provenance: Mapping[str, Any]
    questions: tuple[str, ...]
    text: str
    notes: tuple[str, ...] = ()
    held: object = None


@dataclass(frozen=True)
class ModelFacts:
    """What a server must know of a model beside its weights.

    ``context_length`` counts prompt and answer, in tokens. ``chat_template`` is Jinja, None where there is none.
    """

    context_length: int
    stop_token_ids: tuple[int, ...]
    chat_template: str | None
    bos_token: str
    eos_token: str


def load(path_or_id: str, options: LlmOptions) -> LlmSource:
    """A checkpoint in a folder, or under a hub's id; for vLLM without its weights. Raises: ExportError."""
    ours = options if isinstance(options, OpenVinoOptions) else None
    checkpoint = checkpoints.find(path_or_id, weights=ours is not None)
    if ours or checkpoint.revision is None:
        checkpoints.check_files(checkpoint.folder, tokenizer=True)
    facts = read_facts(checkpoint.folder, options)
    config = checkpoints.read_json(checkpoint.folder, "config.json")
    provenance = {
        "kind": "huggingface",
        "task": "text-generation",
        "model": checkpoint.origin,
        "revision": checkpoint.revision,
        "architecture": ", ".join(config.get("architectures") or ("?",)),
    }
    return LlmSource(
        folder=checkpoint.folder,
        facts=facts,
        provenance=provenance,
        questions=_lines(ours.prompts) if ours and ours.prompts else QUESTIONS,
        text=_read(ours.text) if ours and ours.text else TEXT,
        notes=() if facts.chat_template else ("it has no chat template, so it takes prompts alone (--chat-template)",),
    )


def read_facts(folder: Path, options: LlmOptions) -> ModelFacts:
    """What a checkpoint's files say of context length, end of text and chats. Raises: ExportError."""
    tokenizer = load_tokenizer(folder)
    config = checkpoints.read_json(folder, "config.json")
    generation = checkpoints.read_json(folder, "generation_config.json")
    stops = {tokenizer.eos_token_id, *_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))}
    return ModelFacts(
        context_length=_context_length(folder, config, options.context_length),
        stop_token_ids=tuple(sorted(stop for stop in stops if stop is not None)),
        chat_template=_read(options.chat_template) if options.chat_template else _template(tokenizer),
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
    )


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer; code in it never runs. Raises: ExportError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ExportError("the tokenizer cannot be loaded", where=folder, got=str(error).splitlines()[0]) from error


def _context_length(folder: Path, config: Mapping[str, Any], wanted: int | None) -> int:
    places = (config, config.get("text_config") or {})
    own = next((int(c[key]) for c in places for key in _CONTEXT_KEYS if c.get(key)), None)
    if own is None and wanted is None:
        raise ExportError(
            "the checkpoint does not say how long its context is",
            where=folder / "config.json",
            expected=" or ".join(_CONTEXT_KEYS),
            fix="say it: --context-length TOKENS",
        )
    if own is not None and wanted is not None and wanted > own:
        raise ExportError(
            "the context is longer than the model was trained for",
            where=folder / "config.json",
            got=f"--context-length {wanted}",
            expected=f"at most {own}",
        )
    return wanted or own or 0


def _template(tokenizer: Any) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by purpose
        template = template.get("default") or next(iter(template.values()), None)
    return str(template) if template else None


def _ids(value: Any) -> list[int]:
    """eos_token_id of a config: none, one, or several."""
    return [] if value is None else [int(v) for v in (value if isinstance(value, list) else [value])]


def _lines(path: Path) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in _read(path).splitlines() if line.strip())
    if not lines:
        raise ExportError("the file of prompts is empty", where=path, expected="a prompt on each line")
    return lines


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError("the file cannot be read", where=path, got=error) from error


def generate_json(facts: ModelFacts, **more: Any) -> bytes:
    """generate.json: what the Python backend reads of a version. Tokens are ids, lengths count tokens."""
    document = {
        "format": 1,
        "context_length": facts.context_length,
        "stop_token_ids": list(facts.stop_token_ids),
        "bos_token": facts.bos_token,
        "eos_token": facts.eos_token,
        **more,
    }
    return (json.dumps(document, indent=2) + "\n").encode()
