"""Entities agree with transformers' TokenClassificationPipeline, and cover what it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from python_backends.text_tokenizer.text_encoding import EncodingOptions, TextEncoder
from python_backends.token_classify.entity_spans import Entity, SpanError, Tag, find_entities, read_labels, read_tags
from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import TritonError, strings

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
PLAIN = ("O", "PER", "LOC", "ORG", "MISC")
TEXTS = [
    "John Smith works for Acme Corporation in New York City.",
    "Don't panic: unbelievable re-tokenized words, e.g. 3.14159!",
    "서울에서 온 철수는 오늘 모델을 배포했다.",
    "  emoji 🙂🚀 and   spaces ",
    "",
]


def spans(text: str, rows: Sequence[tuple[str, str]], labels: Sequence[str], **options: Any) -> list[tuple[str, str]]:
    """Entities (label, text) of tokens given as (token's text, its label), found in the text in order."""
    offsets, best, position = [], [], 0
    for token, label in rows:
        start = text.index(token, position)
        position = start + len(token)
        offsets.append((start, position))
        best.append(labels.index(label))
    logits = np.full((len(rows), len(labels)), -5.0, dtype=np.float32)
    logits[np.arange(len(rows)), best] = 5.0
    found = find_entities(
        text, logits, np.ones(len(rows)), np.array(offsets).reshape(-1, 2), read_tags(labels), **options
    )
    return [(entity.label, entity.text) for entity in found]


@pytest.fixture(scope="module")
def compare(small_tokenizers: Any) -> Callable[..., tuple[list[Any], list[Any]]]:
    """A function (text, labels, aggregation) -> our entities and those of transformers' pipeline, as tuples."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline

    # Cased: of letters that lower-casing takes apart (Korean), transformers does not see where words begin.
    small = small_tokenizers["bert_cased"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(small.path), **small.special)
    encoder = TextEncoder(small.path, EncodingOptions(), ("input_ids", "attention_mask", "offsets", "word_ids"))
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=5,
        initializer_range=1.0,
    )
    model = BertForTokenClassification(config).eval()

    def run(text: str, labels: Sequence[str], aggregation: str, pad: int = 0) -> tuple[list[Any], list[Any]]:
        model.config.id2label = dict(enumerate(labels))
        theirs = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation)
        arrays = encoder.rectangle(encoder.encode([text]))
        with torch.no_grad():
            logits = model(**{n: torch.from_numpy(arrays[n]) for n in ("input_ids", "attention_mask")}).logits.numpy()
        # Padding that the model in front would have answered with noise.
        padded = {name: np.pad(a[0], [(0, pad)] + [(0, 0)] * (a.ndim - 2)) for name, a in arrays.items()}
        noise = np.random.default_rng(0).normal(size=(pad, 5)).astype(np.float32)
        ours = find_entities(
            text,
            np.concatenate([logits[0], noise]),
            padded["attention_mask"],
            padded["offsets"],
            read_tags(labels),
            word_ids=padded["word_ids"],
            aggregation=aggregation,
        )
        return (
            [(e.label, e.start, e.end, round(e.score, 5)) for e in ours],
            [(e["entity_group"], e["start"], e["end"], round(float(e["score"]), 5)) for e in theirs(text)]
            if text
            else [],
        )

    return run


@pytest.mark.parametrize("aggregation", ["simple", "first"])
@pytest.mark.parametrize("labels", [BIO, PLAIN], ids=["bio", "plain"])
@pytest.mark.parametrize("text", TEXTS)
def test_entities_agree_with_transformers(text: str, labels: Sequence[str], aggregation: str, compare: Any) -> None:
    ours, theirs = compare(text, labels, aggregation)
    assert len(ours) > 0 or not text
    assert [row[:3] for row in ours] == [row[:3] for row in theirs]
    np.testing.assert_allclose([row[3] for row in ours], [row[3] for row in theirs], atol=2e-5)


def test_what_the_mask_hides_is_no_entity() -> None:
    logits = np.array([[0, 9, 0], [0, 9, 0]], dtype=np.float32)
    found = find_entities("ab cd", logits, np.array([1, 0]), np.array([[0, 2], [3, 5]]), read_tags(("O", "B-X", "I-X")))
    assert [entity.text for entity in found] == ["ab"]


def test_padding_adds_nothing(compare: Any) -> None:
    assert compare(TEXTS[0], BIO, "simple", pad=7)[0] == compare(TEXTS[0], BIO, "simple")[0]


@pytest.mark.parametrize(
    ("labels", "rows", "expected"),
    [
        (
            ("O", "B-PER", "I-PER", "E-PER", "S-PER"),
            [("Ann", "S-PER"), ("Bob", "B-PER"), ("van", "I-PER"), ("Os", "E-PER"), ("Cy", "I-PER")],
            [("PER", "Ann"), ("PER", "Bob van Os"), ("PER", "Cy")],
        ),
        (
            ("O", "B-PER", "I-PER", "E-PER", "S-PER"),
            [("Ann", "B-PER"), ("Bob", "I-PER"), ("van", "S-PER"), ("Os", "O"), ("Cy", "S-PER")],
            [("PER", "Ann Bob"), ("PER", "van"), ("PER", "Cy")],
        ),
        (
            ("O", "B-PER", "I-PER", "L-PER", "U-PER"),
            [("Ann", "U-PER"), ("Bob", "U-PER"), ("van", "B-PER"), ("Os", "L-PER"), ("Cy", "U-PER")],
            [("PER", "Ann"), ("PER", "Bob"), ("PER", "van Os"), ("PER", "Cy")],
        ),
        (
            ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
            [("Ann", "B-PER"), ("Bob", "B-PER"), ("van", "I-PER"), ("Os", "I-LOC"), ("Cy", "O")],
            [("PER", "Ann"), ("PER", "Bob van"), ("LOC", "Os")],
        ),
        (
            ("O", "E-MAIL", "S-BAHN", "PER", "LOC"),  # prefixes of nothing: plain labels
            [("Ann", "E-MAIL"), ("Bob", "E-MAIL"), ("van", "S-BAHN"), ("Os", "PER"), ("Cy", "PER")],
            [("E-MAIL", "Ann Bob"), ("S-BAHN", "van"), ("PER", "Os Cy")],
        ),
    ],
    ids=["bioes", "bioes-unfinished", "bilou", "bio", "plain"],
)
def test_label_schemes(labels: Any, rows: Any, expected: Any) -> None:
    assert spans("Ann Bob van Os Cy", rows, labels) == expected


@pytest.mark.parametrize(
    ("label", "tag"),
    [("O", Tag("I", "O")), ("B-PER", Tag("B", "PER")), ("E-PER", Tag("E", "PER")), ("E-MAIL", Tag("I", "E-MAIL"))],
)
def test_tags(label: str, tag: Tag) -> None:
    labels = ("O", "B-PER", "E-PER", "E-MAIL")
    assert read_tags(labels)[labels.index(label)] == tag


def test_offsets_are_characters_and_cut_the_text() -> None:
    text = "🙂 철수 lives in 서울 👩‍👩‍👧."
    assert spans(text, [("철수", "B-PER"), ("lives", "O"), ("서울", "B-LOC")], BIO) == [
        ("PER", "철수"),
        ("LOC", "서울"),
    ]


def test_words_without_word_ids_end_where_letters_do() -> None:
    rows = [("New", "B-LOC"), ("-", "O"), ("Yo", "B-LOC"), ("rk", "O"), ("s", "O")]
    assert spans("New-York s", rows, BIO, aggregation="first") == [("LOC", "New"), ("LOC", "York")]
    assert spans("New-York s", rows, BIO, aggregation="simple") == [("LOC", "New"), ("LOC", "Yo")]


def test_white_space_that_belongs_to_a_token_is_not_part_of_the_entity() -> None:
    assert spans("in Oslo now", [("in", "O"), (" Oslo", "B-LOC"), (" now", "O")], BIO) == [("LOC", "Oslo")]


def test_ignored_labels() -> None:
    rows = [("a", "B-PER"), ("b", "B-LOC")]
    assert spans("a b", rows, BIO, ignored=frozenset({"O", "PER"})) == [("LOC", "b")]


def test_the_score_is_the_mean_of_the_tokens() -> None:
    logits = np.array([[0, 2, 0], [0, 0, 4]], dtype=np.float32)
    tags = read_tags(("O", "B-X", "I-X"))
    (entity,) = find_entities("ab cd", logits, np.ones(2), np.array([[0, 2], [3, 5]]), tags)
    p = [np.exp(2) / (np.exp(2) + 2), np.exp(4) / (np.exp(4) + 2)]
    assert entity == Entity("X", pytest.approx(np.mean(p), abs=1e-6), 0, 5, "ab cd")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=30), st.integers(0, 2**32 - 1), st.sampled_from(["simple", "first"]))
def test_any_entity_lies_in_the_text_and_in_order(text: str, seed: int, aggregation: str) -> None:
    rng = np.random.default_rng(seed)
    cuts = np.unique(rng.integers(0, len(text) + 1, rng.integers(2, 12)))
    offsets = np.stack([cuts[:-1], cuts[1:]], axis=1)
    logits = rng.normal(0, 3, (len(offsets), len(BIO))).astype(np.float32)
    found = find_entities(text, logits, np.ones(len(offsets)), offsets, read_tags(BIO), aggregation=aggregation)
    assert [e.text for e in found] == [text[e.start : e.end] for e in found]
    assert [e.text for e in found] == [e.text.strip() for e in found]
    bounds = [b for e in found for b in (e.start, e.end)]
    assert bounds == sorted(bounds)
    assert all(0 < e.score <= 1 and e.label in ("PER", "LOC") for e in found)


def test_no_tokens_no_entities() -> None:
    assert find_entities("", np.zeros((2, 5)), np.zeros(2), np.zeros((2, 2), dtype=int), read_tags(BIO)) == []


def test_offsets_of_another_text_are_an_error() -> None:
    with pytest.raises(SpanError, match="input offsets: got 9, expected at most 3"):
        find_entities("abc", np.zeros((1, 5)), np.ones(1), np.array([[0, 9]]), read_tags(BIO))


def test_nan_is_an_error() -> None:
    with pytest.raises(SpanError, match="input logits: got values that are no finite numbers"):
        find_entities("abc", np.full((1, 5), np.nan), np.ones(1), np.array([[0, 3]]), read_tags(BIO))


def test_labels_are_read_and_checked(tmp_path: Any) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("O\nB-PER\n\n", encoding="utf-8")
    assert read_labels(path) == ("O", "B-PER")
    path.write_text("O\n\nB-PER\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"labels\.txt line 2: got an empty line"):
        read_labels(path)


INPUTS = {
    "logits": ("TYPE_FP32", [-1, 5]),
    "attention_mask": ("TYPE_INT64", [-1]),
    "offsets": ("TYPE_INT64", [-1, 2]),
    "text": ("TYPE_STRING", [1]),
}
CONFIG = {"inputs": INPUTS, "outputs": {"entities": ("TYPE_STRING", [1])}}


def request(**changed: Any) -> dict[str, Any]:
    logits = np.zeros((1, 4, 5), dtype=np.float32)
    logits[0, [0, 1, 2, 3], [0, 1, 3, 1]] = 9  # special token, PER, LOC, padding
    tensors = {
        "logits": logits,
        "attention_mask": np.array([[1, 1, 1, 0]]),
        "offsets": np.array([[[0, 0], [0, 2], [3, 7], [0, 0]]]),
        "text": strings("철수 Oslo"),
    }
    return {**tensors, **changed}


def test_the_model_answers_in_json(version_folder: Any) -> None:
    folder = version_folder("token_classify", {"labels.txt": "\n".join(BIO)})
    with fake.load(folder, fake.model_config(**CONFIG)) as model:
        answer = model.infer(**request())
    rows = json.loads(answer["entities"][0, 0])
    assert [list(row) for row in rows] == [["label", "score", "start", "end", "text"]] * 2
    assert [(r["label"], r["start"], r["end"], r["text"]) for r in rows] == [
        ("PER", 0, 2, "철수"),
        ("LOC", 3, 7, "Oslo"),
    ]
    assert "철수".encode() in answer["entities"][0, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": strings(b"\xff")}, "input text: got bytes that are not UTF-8 at index 0"),
        ({"offsets": np.zeros((1, 3, 2), dtype=int)}, "input offsets: got shape [1, 3, 2], expected [1, 4, 2]"),
        ({"attention_mask": np.ones((1, 5), dtype=int)}, "input attention_mask: got shape [1, 5], expected [1, 4]"),
        ({"logits": np.zeros((1, 4, 3), dtype=np.float32)}, "input logits: got shape [1, 4, 3]"),
        ({"text": strings("a", "b")}, "input text: got shape [2, 1], expected [1, 1]"),
        ({"text": strings("a")}, "input offsets: got 7, expected at most 1"),
    ],
)
def test_a_request_that_does_not_fit_together_fails_alone(changed: Any, message: str, version_folder: Any) -> None:
    folder = version_folder("token_classify", {"labels.txt": "\n".join(BIO)})
    with fake.load(folder, fake.model_config(**CONFIG)) as model:
        good, error, last = model.execute(request(), request(**changed), request())
    assert good["entities"].tolist() == last["entities"].tolist()
    assert isinstance(error, TritonError)
    assert message in error.message()
    assert error.code() == TritonError.INVALID_ARG


def test_word_ids_are_used_where_they_come(version_folder: Any) -> None:
    folder = version_folder("token_classify", {"labels.txt": "\n".join(BIO)})
    parameters = {"aggregation": "first", "ignore_labels": "O, LOC"}
    with fake.load(folder, fake.model_config(**CONFIG, parameters=parameters)) as model:
        answer = model.infer(**request(word_ids=np.array([[-1, 0, 0, -1]])))
    assert [row["text"] for row in json.loads(answer["entities"][0, 0])] == ["철수 Oslo"]


@pytest.mark.parametrize(
    ("labels", "parameters", "message"),
    [
        ("\n".join(BIO), {"aggregation": "max"}, "parameter aggregation: got 'max', expected one of simple, first"),
        ("O\nPER", {}, r"input logits: got \[-1, 5\] in the config, expected \[-1, 2\] as in labels.txt"),
        ("\n".join(BIO), {"agregation": "first"}, "did you mean aggregation"),
    ],
)
def test_what_cannot_work_stops_the_load(
    labels: str, parameters: dict[str, str], message: str, version_folder: Any
) -> None:
    folder = version_folder("token_classify", {"labels.txt": labels})
    config = fake.model_config(**CONFIG, parameters=parameters)
    with pytest.raises(ValueError, match=message), fake.load(folder, config):
        pass
