"""How many tokens a text has for a model, and what text some tokens are: by the tokenizer.json of its version.

Triton hands out no files, so this needs the repository. Where the gateway has none, counts are estimates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ConchError
from conch.model_config import CONFIG_FILE, read_config
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError

TOKENIZER_FILE = "tokenizer.json"

# Bytes a token of English text has with the usual vocabularies; for estimates.
BYTES_PER_TOKEN = 4

# A text of more characters than this for each token that its model keeps is longer than what is kept.
_CHARACTERS_PER_TOKEN = 32

# Up to so many characters are counted between two other requests; more, beside them.
_AT_ONCE_CHARACTERS = 20_000

# Vocabularies that are kept, the latest ones: a large one takes tens of megabytes.
_KEPT = 32

Text = str | tuple[str, str]
Tokens = Sequence[int]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer (of the library `tokenizers`), and how many tokens of a text its model keeps, None for all."""

    tokenizer: Any
    longest: int | None

    def count(self, texts: Sequence[Text]) -> int:
        """The tokens of all texts, or pairs of texts, special ones included."""
        keeps = self.longest
        if keeps is None:
            return sum(len(encoding) for encoding in self.tokenizer.encode_batch_fast(texts))
        certain = max(8192, keeps * _CHARACTERS_PER_TOKEN)
        short = [text for text in texts if _length(text) <= certain]
        counts = (len(encoding) for encoding in self.tokenizer.encode_batch_fast(short))
        return sum(min(count, keeps) for count in counts) + keeps * (len(texts) - len(short))

    def text(self, tokens: Tokens) -> str:
        """What tokens stand for. Raises: GatewayError 400 for one that there is not."""
        size = self.tokenizer.get_vocab_size()
        unknown = next((token for token in tokens if token >= size), None)
        if unknown is not None:
            due = f"0 to {size - 1}"
            raise GatewayError("the model has no such token", status=400, param="prompt", got=unknown, expected=due)
        # What the model's own tokenizer puts before every text must not be there twice.
        before = self.tokenizer.encode("").ids
        kept = tokens[1:] if before and tokens[0] == before[0] else tokens
        return str(self.tokenizer.decode(list(kept), skip_special_tokens=False))


_Key = tuple[Path, tuple[str, ...]]
_LOADED: dict[_Key, Vocabulary | None] = {}


async def vocabulary_of(served: ServedModel, repository: Path | None) -> Vocabulary | None:
    """The vocabulary of a served version; None where it is not to be had.

    An ensemble's lies with the first of its members that has one. Version folders never change: one look is enough.
    """
    if repository is None:
        return None
    members = [(step.model, step.version) for step in served.steps] or [(served.name, served.version)]
    folders = tuple(f"{model}/{served.version if version in ('', '-1') else version}" for model, version in members)
    key = (repository, folders)
    if key not in _LOADED:
        _LOADED[key] = await asyncio.to_thread(_load, key)
        while len(_LOADED) > _KEPT:
            _LOADED.pop(next(iter(_LOADED)))
    return _LOADED.get(key)


async def count_tokens(texts: Sequence[Text], served: ServedModel, repository: Path | None) -> int:
    """How many tokens the model reads of texts, or of pairs of texts; estimated where its vocabulary is not known."""
    known = await vocabulary_of(served, repository)
    if known is None:
        return sum(-(-_length(text, in_bytes=True) // BYTES_PER_TOKEN) for text in texts)
    if sum(_length(text) for text in texts) <= _AT_ONCE_CHARACTERS:
        return known.count(texts)
    return await asyncio.to_thread(known.count, texts)


async def prompt_texts(
    prompt: str | Sequence[str] | Tokens | Sequence[Tokens], served: ServedModel, repository: Path | None
) -> list[str]:
    """The prompts of a completion as texts; tokens are turned back into what they stand for.

    Raises: GatewayError 400 when the vocabulary is not known, or has no such tokens.
    """
    if isinstance(prompt, str):
        return [prompt]
    given: Sequence[Any] = [prompt] if isinstance(prompt[0], int) else prompt
    if all(isinstance(each, str) for each in given):
        return list(given)
    known = await vocabulary_of(served, repository)
    if known is None:
        raise GatewayError(
            "the prompt cannot be given as tokens",
            status=400,
            code="tokens_not_supported",
            param="prompt",
            got="token ids of a vocabulary that the gateway does not have",
            fix="send text, or start the gateway with the model repository",
        )
    return [known.text(tokens) for tokens in given]


def _load(key: _Key) -> Vocabulary | None:
    repository, folders = key
    path = next((path for folder in folders if (path := repository / folder / TOKENIZER_FILE).is_file()), None)
    if path is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    longest = _longest(path.parent.parent / CONFIG_FILE) or (tokenizer.truncation or {}).get("max_length")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Vocabulary(tokenizer, longest)


def _longest(config: Path) -> int | None:
    """How many tokens the model keeps of a text, where its config says so."""
    try:
        parameters = read_config(config).parameters
    except ConchError:
        return None
    # A pipeline in one model names its parts' parameters apart where they would be the same.
    said = [parameters[name].string_value for name in ("max_length", "preprocess.max_length") if name in parameters]
    return int(said[0]) if said and said[0].isdecimal() else None


def _length(text: Text, *, in_bytes: bool = False) -> int:
    if isinstance(text, tuple):
        return sum(_length(part, in_bytes=in_bytes) for part in text)
    return len(text.encode("utf-8")) if in_bytes else len(text)
