"""Text to token ids, as the tokenizer.json of the model says: truncated, encoded, padded into rectangles.

Knows nothing of Triton. Equal to transformers' fast tokenizers, token by token: both run the same Rust code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

OUTPUTS = ("input_ids", "attention_mask", "token_type_ids", "offsets", "word_ids")
SIDES = ("left", "right")

# What the token is called that fills up shorter texts, where tokenizer.json has no padding section.
_PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")

# A text of more characters than this for each token that is kept is cut before it is encoded.
_LONG_CHARACTERS_PER_TOKEN = 32
_LONG_CHARACTERS = 8192

Text = str | tuple[str, str]
Array = npt.NDArray[Any]


class TextError(ValueError):
    """A request's text cannot be encoded; the message names tensor, got and expected."""


@dataclass(frozen=True)
class EncodingOptions:
    """How texts become rectangles; None takes what tokenizer.json says.

    ``max_length`` counts tokens, the special ones included, and for pairs those of both texts. ``pad_to_multiple_of``
    rounds the padded length up, never beyond ``max_length``.
    """

    max_length: int | None = None
    pad_to_multiple_of: int = 1
    pad_id: int | None = None
    pad_type_id: int | None = None
    padding_side: str | None = None
    truncation_side: str | None = None


class TextEncoder:
    """Encodes texts and pairs with one tokenizer.json."""

    def __init__(self, tokenizer_json: Path, options: EncodingOptions, outputs: Sequence[str]) -> None:
        """Load the tokenizer. Raises: ValueError when the file or an option is wrong, naming it."""
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except Exception as error:  # the Rust library raises plain Exception
            raise ValueError(f"{tokenizer_json.name} cannot be loaded: {error}") from error
        padding: dict[str, Any] = self._tokenizer.padding or {}
        truncation: dict[str, Any] = self._tokenizer.truncation or {}
        self.pad_id = options.pad_id if options.pad_id is not None else _find_pad_id(self._tokenizer, padding)
        self.pad_type_id = options.pad_type_id if options.pad_type_id is not None else padding.get("pad_type_id", 0)
        self.max_length = options.max_length if options.max_length is not None else truncation.get("max_length")
        self._pad_left = _side(options.padding_side or padding.get("direction", "right"), "padding_side") == "left"
        self._cut_left = _side(options.truncation_side or truncation.get("direction", "right"), "truncation_side") == (
            "left"
        )
        self._multiple = options.pad_to_multiple_of
        self._outputs = tuple(outputs)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self.max_length is not None:
            self._limit(self.max_length)
        # Without offsets the tokenizer is 15 to 30 % faster.
        slow = {"offsets", "word_ids"} & set(outputs)
        self._encode_batch = self._tokenizer.encode_batch if slow else self._tokenizer.encode_batch_fast

    def _limit(self, max_length: int) -> None:
        special = self._tokenizer.num_special_tokens_to_add(True)
        if max_length <= special:
            raise ValueError(f"max_length: got {max_length}, expected more than the {special} special tokens of a pair")
        direction = "left" if self._cut_left else "right"
        self._tokenizer.enable_truncation(max_length, strategy="longest_first", direction=direction)

    def encode(self, texts: Sequence[Text]) -> list[Any]:
        """One encoding a text or pair, in order, not padded. Raises: TextError when the tokenizer refuses one."""
        if self.max_length is not None:
            longest = max(_LONG_CHARACTERS, _LONG_CHARACTERS_PER_TOKEN * self.max_length)
            texts = [self._shorten(text, longest) for text in texts]
        try:
            encodings: list[Any] = self._encode_batch(texts)
        except Exception as error:  # the Rust library raises plain Exception
            raise TextError(f"input text: got a text that the tokenizer refuses: {error}") from error
        return encodings

    def rectangle(self, encodings: Sequence[Any], wanted: Sequence[str] | None = None) -> dict[str, Array]:
        """The encodings of one request as arrays INT64 [n, length]; ``offsets`` [n, length, 2].

        The length is that of the longest, rounded up; at least 1, as few models take an empty sequence. Padding has
        attention_mask 0, word id -1 and offsets (0, 0). Offsets count the characters of a Python ``str``.
        """
        wanted = self._outputs if wanted is None else wanted
        lengths = [len(encoding) for encoding in encodings]
        width = self._padded_length(max(lengths, default=0))
        if all(length == width for length in lengths):
            return {name: _stack(name, encodings, width) for name in wanted}
        spans = [slice(width - n, width) if self._pad_left else slice(0, n) for n in lengths]
        fill = {"input_ids": self.pad_id, "token_type_ids": self.pad_type_id, "word_ids": -1}
        arrays = {}
        for name in wanted:
            shape = (len(encodings), width, 2) if name == "offsets" else (len(encodings), width)
            array = np.full(shape, fill.get(name, 0), dtype=np.int64)
            for row, (encoding, span, length) in enumerate(zip(encodings, spans, lengths, strict=True)):
                if length:
                    array[row, span] = _values(name, encoding)
            arrays[name] = array
        return arrays

    def _padded_length(self, longest: int) -> int:
        rounded = max(1, -(-longest // self._multiple)) * self._multiple
        if self.max_length is not None:
            # A model has no positions beyond its max_length, whatever the multiple says.
            return max(min(rounded, self.max_length), longest)
        return rounded

    def _shorten(self, text: Text, longest: int) -> Text:
        """Cut what truncation would drop anyway: encoding all of a megabyte to keep 128 tokens takes seconds."""
        if isinstance(text, tuple):
            return self._shorten_one(text[0], longest), self._shorten_one(text[1], longest)
        return self._shorten_one(text, longest)

    def _shorten_one(self, text: str, longest: int) -> str:
        length = longest
        while length < len(text):
            piece = _keep(text, length, from_end=self._cut_left)
            (encoding,) = self._tokenizer.encode_batch_fast([piece])
            # Enough tokens beyond those kept that the cut, which may fall within a word, cannot reach them.
            if len(encoding.overflowing) >= 2:
                return piece
            length *= 2
        return text


def decode_texts(array: Array, tensor: str) -> list[str]:
    """The strings of a BYTES array [n, 1] (or [1]). Raises: TextError, with the index of the text that is no UTF-8."""
    if array.ndim not in (1, 2) or array.shape[-1] != 1:
        raise TextError(f"input {tensor}: got shape {list(array.shape)}, expected [batch, 1]")
    texts = []
    for index, value in enumerate(array.ravel().tolist()):
        try:
            texts.append(value if isinstance(value, str) else value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise TextError(
                f"input {tensor}: got bytes that are not UTF-8 at index {index} "
                f"(byte {error.start}: 0x{value[error.start]:02x}), expected UTF-8 text"
            ) from error
    return texts


def pair_up(texts: Sequence[str], seconds: Sequence[str]) -> list[Text]:
    """Texts and their pairs. Raises: TextError when there are not as many of each."""
    if len(texts) != len(seconds):
        raise TextError(f"input text_pair: got {len(seconds)} texts, expected {len(texts)}, as many as in input text")
    return list(zip(texts, seconds, strict=True))


def _find_pad_id(tokenizer: Tokenizer, padding: dict[str, Any]) -> int:
    if "pad_id" in padding:
        return int(padding["pad_id"])
    found = (tokenizer.token_to_id(token) for token in _PAD_TOKENS)
    # The mask hides padding, so that any id serves a model that has no token for it.
    return next((token_id for token_id in found if token_id is not None), 0)


def _side(side: str, parameter: str) -> str:
    if side not in SIDES:
        raise ValueError(f"parameter {parameter}: got {side!r}, expected left or right")
    return side


def _stack(name: str, encodings: Sequence[Any], width: int) -> Array:
    """Rows of one length, without filling: the usual case of one text a request."""
    if name == "attention_mask":
        return np.ones((len(encodings), width), dtype=np.int64)
    return np.array([_values(name, encoding) for encoding in encodings], dtype=np.int64)


def _values(name: str, encoding: Any) -> Any:
    if name == "input_ids":
        return encoding.ids
    if name == "attention_mask":
        return encoding.attention_mask
    if name == "token_type_ids":
        return encoding.type_ids
    if name == "offsets":
        return encoding.offsets
    return [-1 if word is None else word for word in encoding.word_ids]


def _keep(text: str, length: int, *, from_end: bool) -> str:
    """The first (or last) ``length`` characters, without the word that the cut went through where there is a space."""
    if from_end:
        piece = text[-length:]
        space = piece.find(" ")
        return piece[space:] if 0 <= space < length // 2 else piece
    piece = text[:length]
    space = piece.rfind(" ")
    return piece[:space] if space > length // 2 else piece
