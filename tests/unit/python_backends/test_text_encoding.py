"""Encoding agrees with transformers' fast tokenizers, token by token."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from python_backends.text_tokenizer.text_encoding import (
    EncodingOptions,
    TextEncoder,
    TextError,
    decode_texts,
    pair_up,
)

OUTPUTS = ("input_ids", "attention_mask", "token_type_ids")
KINDS = ("bert", "roberta", "gpt2", "unigram")
TEXTS = [
    "A plain sentence.",
    "서울에서 온 철수는 모델을 배포했다",
    "e\u0301 combining vs é; na\u0131\u0308ve",
    "👩‍👩‍👧🚀 emoji 🙂",
    "  leading, inner   and trailing  ",
    "tab\tnewline\nnull\x00bell\x07 zero\u200bwidth bom\ufeff",
    "한글 자모 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "العربية हिन्दी 中文字符",
    "[SEP] </s> <pad> special tokens in a text [MASK]",
    "word " * 60,
]

Reference = Callable[[str], Any]


@pytest.fixture(scope="module")
def reference(small_tokenizers: Any) -> Reference:
    """A function kind -> transformers' tokenizer made from the same tokenizer.json."""
    from transformers import PreTrainedTokenizerFast

    made = {
        kind: PreTrainedTokenizerFast(tokenizer_file=str(small.path), model_input_names=list(OUTPUTS), **small.special)
        for kind, small in small_tokenizers.items()
    }
    return lambda kind: made[kind]


@pytest.fixture(scope="module")
def encode(small_tokenizers: Any) -> Callable[..., dict[str, np.ndarray]]:
    """A function (kind, texts, outputs=..., **options) -> arrays."""

    def run(kind: str, texts: Any, outputs: tuple[str, ...] = OUTPUTS, **options: Any) -> dict[str, np.ndarray]:
        encoder = TextEncoder(small_tokenizers[kind].path, EncodingOptions(**options), outputs)
        return encoder.rectangle(encoder.encode(texts))

    return run


def assert_same(got: dict[str, np.ndarray], due: Any) -> None:
    for name in OUTPUTS:
        assert got[name].dtype == np.int64
        np.testing.assert_array_equal(got[name], due[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_agree_with_transformers(
    kind: str, multiple: int, side: str, encode: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = reference(kind)
    monkeypatch.setattr(theirs, "padding_side", side)
    due = theirs(TEXTS, padding=True, truncation=True, max_length=32, pad_to_multiple_of=multiple, return_tensors="np")
    got = encode(kind, TEXTS, max_length=32, pad_to_multiple_of=multiple, padding_side=side)
    assert_same(got, due)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [9, 24, 128])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_agree_with_transformers(
    kind: str, max_length: int, side: str, encode: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = reference(kind)
    monkeypatch.setattr(theirs, "truncation_side", side)
    pairs = [("a query", "a long passage " * 20), ("long query " * 20, "short"), *zip(TEXTS, TEXTS[::-1], strict=True)]
    firsts, seconds = (list(part) for part in zip(*pairs, strict=True))
    due = theirs(firsts, seconds, padding=True, truncation="longest_first", max_length=max_length, return_tensors="np")
    assert_same(encode(kind, pairs, max_length=max_length, truncation_side=side), due)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_agrees_with_transformers(kind: str, encode: Any, reference: Reference) -> None:
    theirs = reference(kind)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
    def agrees(texts: list[str]) -> None:
        due = theirs(texts, padding=True, truncation=True, max_length=24)
        got = encode(kind, texts, max_length=24)
        width = max(1, len(due["input_ids"][0]))
        assert got["input_ids"].shape == (len(texts), width)
        if due["input_ids"][0]:  # nothing but empty texts: ours holds one token of padding
            assert_same(got, due)

    agrees()


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_those_of_transformers(kind: str, encode: Any, reference: Reference) -> None:
    due = reference(kind)(TEXTS, padding=True, truncation=True, max_length=32, return_offsets_mapping=True)
    got = encode(kind, TEXTS, outputs=("input_ids", "offsets", "word_ids"), max_length=32)
    np.testing.assert_array_equal(got["input_ids"], due["input_ids"])
    np.testing.assert_array_equal(got["offsets"], due["offset_mapping"])
    words = [[-1 if word is None else word for word in due.word_ids(row)] for row in range(len(TEXTS))]
    np.testing.assert_array_equal(got["word_ids"], words)


def test_offsets_count_characters_not_bytes(encode: Any) -> None:
    text = "철수 🙂 fox"
    got = encode("bert", [text], outputs=("offsets",))["offsets"][0]
    assert text[got[-2][0] : got[-2][1]] == "x" or text[got[-2][0] : got[-2][1]] == "fox"
    assert got.max() == len(text)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_texts_have_at_least_one_position(kind: str, encode: Any) -> None:
    got = encode(kind, ["", ""])
    assert got["input_ids"].shape[1] >= 1
    if kind == "gpt2":
        np.testing.assert_array_equal(got["attention_mask"], [[0], [0]])


def test_padding_is_rounded_up_but_never_beyond_max_length(encode: Any) -> None:
    got = encode("bert", ["word " * 60], max_length=20, pad_to_multiple_of=16)
    assert got["input_ids"].shape == (1, 20)


@pytest.mark.parametrize(("multiple", "shapes"), [(1, 8), (16, 1)])
def test_buckets_make_lengths_equal(multiple: int, shapes: int, encode: Any) -> None:
    texts = ["fox " * n for n in range(1, 9)]
    widths = {encode("bert", [text], pad_to_multiple_of=multiple)["input_ids"].shape[1] for text in texts}
    assert len(widths) == shapes


@pytest.mark.parametrize(
    ("kind", "pad_id"), [("bert", 0), ("roberta", 1), ("gpt2", 0), ("unigram", 1)], ids=lambda v: str(v)
)
def test_pad_id_comes_from_the_tokenizer(kind: str, pad_id: int, encode: Any) -> None:
    got = encode(kind, ["fox", "the quick brown fox"])
    assert got["input_ids"][0, -1] == pad_id
    assert got["attention_mask"][0, -1] == 0


def test_the_tokenizers_own_padding_is_the_default(small_tokenizers: Any, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(small_tokenizers["bert"].path))
    tokenizer.enable_padding(pad_id=9, pad_type_id=4, pad_token="x", direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path / "tokenizer.json", EncodingOptions(), OUTPUTS)
    got = encoder.rectangle(encoder.encode(["fox", "the quick brown fox"]))
    assert (got["input_ids"][0, 0], got["token_type_ids"][0, 0], got["attention_mask"][0, 0]) == (9, 4, 0)


def test_parameters_win_over_the_tokenizer(encode: Any) -> None:
    got = encode("bert", ["fox", "the quick brown fox"], pad_id=7, pad_type_id=3, padding_side="left")
    assert (got["input_ids"][0, 0], got["token_type_ids"][0, 0], got["attention_mask"][0, 0]) == (7, 3, 0)


def test_the_tokenizers_own_truncation_is_the_default(encode: Any) -> None:
    assert encode("bert", ["fox " * 500])["input_ids"].shape == (1, 128)
    assert encode("gpt2", ["fox " * 500])["input_ids"].shape[1] > 500


MEGABYTE = 1_000_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    ["the quick brown fox " * (MEGABYTE // 20), "철수는 오늘 " * (MEGABYTE // 7), "ab" * (MEGABYTE // 2)],
    ids=["english", "korean", "one-word"],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_megabyte_is_cut_and_gives_the_same_tokens(
    kind: str, text: str, side: str, encode: Any, small_tokenizers: Any
) -> None:
    from tokenizers import Tokenizer

    started = time.monotonic()
    got = encode(kind, [text], max_length=32, truncation_side=side)["input_ids"]
    took = time.monotonic() - started
    # All of the text, for comparison: a twentieth of it still is far over what is kept.
    whole = Tokenizer.from_file(str(small_tokenizers[kind].path))
    whole.no_padding()
    whole.enable_truncation(32, direction=side)
    part = text[: len(text) // 20] if side == "right" else text[-len(text) // 20 :]
    np.testing.assert_array_equal(got[0], whole.encode(part).ids)
    assert took < 30


def test_what_is_mostly_space_is_not_lost(encode: Any) -> None:
    far = " " * 300_000 + "fox"
    np.testing.assert_array_equal(
        encode("bert", [far], max_length=16)["input_ids"], encode("bert", ["fox"], max_length=16)["input_ids"]
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([b"fine", b"\xff\xfe"], ["text", "index 1", "0xff", "UTF-8"]),
        ([b"\xed\x95"], ["index 0", "byte 0"]),
        ([b"ab\xc3("], ["index 0", "byte 2"]),
    ],
)
def test_bytes_that_are_no_utf8_are_named(values: list[bytes], words: list[str]) -> None:
    with pytest.raises(TextError) as caught:
        decode_texts(np.array(values, dtype=object)[:, None], "text")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("shape", [(2, 2), (1, 1, 1), ()])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(TextError, match=r"input text: got shape .*, expected \[batch, 1\]"):
        decode_texts(np.full(shape, b"x", dtype=object), "text")


def test_uneven_pairs_are_refused() -> None:
    with pytest.raises(TextError, match="input text_pair: got 1 texts, expected 2"):
        pair_up(["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 3}, "max_length: got 3, expected more than the 3 special tokens"),
        ({"padding_side": "up"}, "padding_side: got 'up', expected left or right"),
        ({"truncation_side": "both"}, "truncation_side: got 'both'"),
    ],
)
def test_options_that_cannot_work_are_refused_at_load(
    options: dict[str, Any], message: str, small_tokenizers: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        TextEncoder(small_tokenizers["bert"].path, EncodingOptions(**options), OUTPUTS)


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be loaded"):
        TextEncoder(path, EncodingOptions(), OUTPUTS)
