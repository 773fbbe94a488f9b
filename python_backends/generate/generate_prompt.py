"""What the model reads: the tokens of a prompt or of a chat; and what its tokens say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generate_chat import ChatTemplate
from generate_refusal import Refused, invalid, too_long
from generate_request import Ask
from generate_settings import Settings, read_json, token_ids
from tokenizers import Tokenizer


class Prompts:
    """The tokenizer of a version, tokenizer.json, and its chat template, if it has one. For any thread."""

    def __init__(self, settings: Settings) -> None:
        """Read the files. Raises: ValueError for one that is wrong, or a tokenizer that is not there."""
        path = settings.folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{path}: got no such file, expected the model's tokenizer")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path}: {error}, expected a tokenizer.json") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._settings = settings
        self._longest_token = max((len(token) for token in self._tokenizer.get_vocab()), default=1)
        template = settings.folder / "chat_template.jinja"
        config = read_json(settings.folder / "config.json")
        self._chat = ChatTemplate(template, self._special_tokens(config)) if template.is_file() else None

    def encode(self, ask: Ask) -> list[int]:
        """The tokens of what a request asks, one at least and with room for an answer. Raises: Refused."""
        room = self._settings.context_length
        text = ask.text if ask.chat is None else self._render(ask.chat)
        # Counted in characters first: a book would take seconds to encode.
        if len(text) > room * self._longest_token:
            raise too_long(f"more than {len(text) // self._longest_token}", room)
        # A template writes the special tokens itself.
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=ask.chat is None).ids
        if not tokens:
            raise invalid("text_input", text, "a prompt of one token at least")
        if len(tokens) >= room:
            raise too_long(str(len(tokens)), room)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Their text without special tokens."""
        return str(self._tokenizer.decode(tokens))

    def decode_all(self, tokens: Sequence[int]) -> str:
        """Their text, special tokens too."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _render(self, chat: str) -> str:
        if self._chat is None:
            raise Refused("invalid: chat: this model has no chat template, expected a prompt in text_input")
        return self._chat.render(chat)

    def _special_tokens(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The names that templates use, and the tokens that config.json means by them."""
        found = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            ids = token_ids(config.get(f"{name}_id"))
            token = self._tokenizer.id_to_token(min(ids)) if ids else None
            if token is not None:
                found[name] = token
        return found
