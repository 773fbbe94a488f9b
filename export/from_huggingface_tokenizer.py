"""A checkpoint's tokenizer: checked, made the asset that text_tokenizer serves, and the reference that it is held to.

transformers' own tokenizer is the reference; what is served is the Rust tokenizer inside it, as a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ExportError
from conch.tensor_spec import Array, TensorSpec
from export.quiet import quiet

# What transformers says when a tokenizer names no limit is a number near 1e30; this is where no limit is known.
UNKNOWN_LENGTH = 512
_NO_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer of transformers and how the model wants its texts.

    ``tensors`` are the model's inputs, of those that the tokenizer makes, in the order of the model's own signature.
    ``max_length`` counts tokens, special ones included.
    """

    inner: Any
    tensors: tuple[str, ...]
    max_length: int

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that tokenizing gives, each INT64 [n]."""
        return tuple(TensorSpec(name, "INT64", (-1,)) for name in self.tensors)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, Array]:
        """Texts as the model's inputs, padded to the longest: INT64 [len(texts), n] each."""
        with quiet():
            encoded = self.inner(
                list(texts),
                list(pairs) if pairs is not None else None,
                padding=True,
                truncation=True,
                max_length=self.max_length,
            )
        return {name: np.array(encoded[name], dtype=np.int64) for name in self.tensors}

    def asset(self) -> bytes:
        """tokenizer.json, with the model's padding and truncation written into it."""
        import tokenizers

        copy = tokenizers.Tokenizer.from_str(self.inner.backend_tokenizer.to_str())
        copy.enable_truncation(self.max_length, strategy="longest_first", direction=self.inner.truncation_side)
        if self.inner.pad_token_id is not None:
            copy.enable_padding(
                direction=self.inner.padding_side,
                pad_id=self.inner.pad_token_id,
                pad_type_id=self.inner.pad_token_type_id,
                pad_token=self.inner.pad_token,
            )
        return str(copy.to_str(pretty=False)).encode("utf-8")

    @property
    def package(self) -> str:
        """The pip requirement that reads the asset: an older library may not know a newer one's file."""
        import tokenizers

        return f"tokenizers>={tokenizers.__version__}"


def open_tokenizer(
    folder: Path,
    model: Any,
    forward: Sequence[str],
    *,
    pairs: bool = False,
    max_length: int | None = None,
    lowercase: bool = False,
) -> Tokenizer:
    """The tokenizer in a folder, for a model whose forward takes the arguments ``forward``.

    ``pairs`` says that texts come in pairs. ``max_length`` is the checkpoint's own limit, where it has one beside the
    tokenizer's and the model's. ``lowercase`` puts texts into small letters first. Raises: ExportError when it cannot
    be served, or does not fit the model.
    """
    import transformers

    try:
        with quiet():
            inner = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a tokenizer's class raises
        lines = str(error).strip().splitlines()
        raise ExportError(
            "the tokenizer cannot be loaded",
            where=folder,
            got=f"{type(error).__name__}: {lines[0] if lines else ''}",
            fix="save it again with tokenizer.save_pretrained(DIR), by a transformers that loads it",
        ) from error
    if not getattr(inner, "is_fast", False):
        raise ExportError(
            "the tokenizer is written in Python; only those of the Rust library `tokenizers` can be served",
            where=folder,
            got=type(inner).__name__,
            expected="a folder with a tokenizer.json",
            fix="convert it: load it with a fast class of transformers, and save_pretrained(DIR) that",
        )
    if inner.pad_token_id is None and inner.eos_token_id is not None:
        inner.pad_token = inner.eos_token  # padding is masked out, so any token will do
    if lowercase:
        _lowercase(inner)
    with quiet():
        probe = inner("a")
    tensors = tuple(name for name in forward if name in probe)
    if "input_ids" not in tensors or "attention_mask" not in tensors:
        raise ExportError(
            "the model does not take what the tokenizer makes",
            where=type(model).__name__,
            got=", ".join(probe),
            expected="input_ids and attention_mask among " + ", ".join(forward),
        )
    if not pairs and not any(probe.get("token_type_ids", ())):
        # Only the second of a pair has another type than 0, and 0 is what a model takes when it is told nothing: each
        # request saves a tensor on its way from the tokenizer to the graph.
        tensors = tuple(name for name in tensors if name != "token_type_ids")
    _check_vocabulary(inner, model, folder)
    # transformers' pipelines cut texts by this number alone.
    inner.model_max_length = find_max_length(inner, model, max_length)
    return Tokenizer(inner, tensors, inner.model_max_length)


def _lowercase(inner: Any) -> None:
    from tokenizers import normalizers

    before = inner.backend_tokenizer.normalizer
    steps = [normalizers.Lowercase()] + ([before] if before is not None else [])
    inner.backend_tokenizer.normalizer = normalizers.Sequence(steps)


def _check_vocabulary(inner: Any, model: Any, folder: Path) -> None:
    """Raise ExportError when the tokenizer makes ids that the model has no row for: another model's tokenizer."""
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(inner.get_vocab().values(), default=-1)
    if highest >= rows or highest < 0:
        raise ExportError(
            "the tokenizer is not this model's",
            where=folder,
            got=f"token ids up to {highest}",
            expected=f"ids below {rows}, the rows of the model's embedding table",
            fix="save the tokenizer that the model was trained with into the folder",
        )


def find_max_length(inner: Any, model: Any, own: int | None = None) -> int:
    """The most tokens that tokenizer, model and checkpoint all allow."""
    limits = [limit for limit in (own, inner.model_max_length, position_limit(model)) if limit and limit < _NO_LIMIT]
    return int(min(limits, default=UNKNOWN_LENGTH))


def position_limit(model: Any) -> int | None:
    """The most tokens that the model has positions for, None where its positions have no table.

    RoBERTa and its kin count positions from the padding's id + 1, so 514 rows are 512 tokens; the table then has a
    ``padding_idx``.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - offset
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None
