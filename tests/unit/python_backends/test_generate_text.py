"""Pieces of text make the whole text, hold no half characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.fakes.generate_code import module
from tests.unit.python_backends.conftest import gpt2, unigram

TextPieces = module("generate_text").TextPieces
TOKENIZERS = {"gpt2": gpt2(), "unigram": unigram()}
WORDS = "다람쥐 👩‍👩‍👧🚀 café résumé naïve 中文字符 日本語 plain words, and more. "


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[int], at_once: int = 1) -> list[str]:
    pieces = TextPieces(tokenizer.decode)
    parts = [tokens[at : at + at_once] for at in range(0, len(tokens), at_once)]
    return [*(pieces.add(part) for part in parts), pieces.finish()]


def cut(text: str, stop: Sequence[str], at_once: int = 1, **options: bool) -> tuple[str, bool]:
    """The text that comes when characters are tokens, and whether a stop string ended it."""
    pieces = TextPieces(lambda tokens: "".join(map(chr, tokens)), stop, **options)
    out = ""
    for at in range(0, len(text), at_once):
        out += pieces.add([ord(letter) for letter in text[at : at + at_once]])
        if pieces.stopped:
            break
    return out + pieces.finish(), pieces.stopped


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(max_size=40) | st.sampled_from([WORDS, WORDS[::-1]]), at_once=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_pieces_of_a_text_make_the_text(kind: str, text: str, at_once: int) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text).ids
    whole = tokenizer.decode(tokens)
    pieces = pieces_of(tokenizer, tokens, at_once)
    assert "".join(pieces) == whole
    assert ("\ufffd" in "".join(pieces)) == ("\ufffd" in whole), "half a character was sent"


@given(tokens=st.lists(st.integers(1, 256), max_size=60))
@settings(max_examples=150, deadline=None)
def test_pieces_of_bytes_that_are_no_text_make_what_the_decoder_says(tokens: list[int]) -> None:
    tokenizer = TOKENIZERS["gpt2"]
    assert "".join(pieces_of(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_what_never_becomes_a_character_is_sent_in_the_end() -> None:
    tokenizer = TOKENIZERS["gpt2"]
    lead = tokenizer.encode("é").ids[0]
    pieces = pieces_of(tokenizer, [lead] * 64)
    assert sum(bool(piece) for piece in pieces) > 1, "all of it waited for the end"


@pytest.mark.parametrize("at_once", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("text", "stop", "due"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["w"], "one t"),
        ("aab", ["ab"], "a"),
        ("aaab aab", ["aab"], "a"),
        ("say END now", ["END", "say END now"], "say "),
        ("say END now", ["now", "EN"], "say "),
        ("nothing of it", ["###", "\n\n"], "nothing of it"),
        ("ends as it sta", ["start"], "ends as it sta"),
    ],
)
def test_a_text_ends_before_its_first_stop_string(text: str, stop: list[str], due: str, at_once: int) -> None:
    assert cut(text, stop, at_once) == (due, due != text)


def test_a_stop_string_may_be_part_of_the_text() -> None:
    assert cut("one two three", ["two"], include_stop=True) == ("one two", True)


@given(text=st.text("ab", max_size=30), stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_cutting_token_by_token_is_cutting_the_whole(text: str, stop: list[str]) -> None:
    ends = [at + len(one) for one in stop if (at := text.find(one)) >= 0]
    whole = text[: min(text.find(one) for one in stop if one in text[: min(ends)])] if ends else text
    assert cut(text, stop) == (whole, bool(ends))
