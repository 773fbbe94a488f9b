"""Tokens counted, and turned back into text, by the tokenizer.json of a version in the repository."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from conch.tensor_spec import ModelSignature
from gateway.catalogue import EnsembleStep, ServedModel
from gateway.errors import GatewayError
from gateway.openai_api.vocabulary import count_tokens, prompt_texts

WORDS = {"<s>": 0, "</s>": 1, "one": 2, "two": 3, "?": 4}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Words by spaces, <s> before and </s> behind; model_preprocess keeps 4 tokens, single has versions 1 and 2."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    for folder in ("model_preprocess/3", "single/1"):
        (tmp_path / folder).mkdir(parents=True)
        tokenizer.save(str(tmp_path / folder / "tokenizer.json"))
    (tmp_path / "single/2").mkdir()
    (tmp_path / "model_preprocess/config.pbtxt").write_text(
        'parameters { key: "max_length" value { string_value: "4" } }'
    )
    return tmp_path


def ensemble(version: str = "3", step_version: str = "-1") -> ServedModel:
    steps = tuple(EnsembleStep(name, step_version, {}, {}) for name in ("model_first", "model_preprocess"))
    return ServedModel("model", version, (version,), "embeddings", ModelSignature((), ()), steps=steps)


def single(version: str = "1") -> ServedModel:
    return ServedModel("single", version, (version,), "generate", ModelSignature((), ()))


async def test_special_tokens_count_and_what_is_cut_off_does_not(repository: Path) -> None:
    assert await count_tokens(["one"], single(), repository) == 3
    assert await count_tokens(["one two one two", "one"], ensemble(), repository) == 4 + 3
    assert await count_tokens(["one " * 100_000], ensemble(), repository) == 4
    assert await count_tokens([("one", "two")], single(), repository) == 5


async def test_a_step_s_version_is_its_own_where_it_has_one(repository: Path) -> None:
    assert await count_tokens(["one two"], ensemble(version="9", step_version="3"), repository) == 4
    assert await count_tokens(["one two"], ensemble(version="9"), repository) == 2  # an estimate: there is no folder 9


@pytest.mark.parametrize("text", ["x", "x" * 8, "é" * 4, "one two!"])
async def test_without_a_vocabulary_it_is_an_estimate(repository: Path, text: str) -> None:
    due = -(-len(text.encode()) // 4)
    assert await count_tokens([text], single("2"), repository) == due
    assert await count_tokens([text], single(), None) == due
    assert await count_tokens([(text, text)], single(), None) == -(-2 * len(text.encode()) // 4)


async def test_prompts_as_tokens_are_texts_again(repository: Path) -> None:
    assert await prompt_texts([2, 3], single(), repository) == ["one two"]
    assert await prompt_texts([[0, 2], [3]], single(), repository) == ["one", "two"]
    assert await prompt_texts("as it is", single(), None) == ["as it is"]
    assert await prompt_texts(["a", "b"], single(), None) == ["a", "b"]


@pytest.mark.parametrize(("known", "words"), [(True, "no such token"), (False, "cannot be given as tokens")])
async def test_tokens_that_mean_nothing_are_refused(repository: Path, known: bool, words: str) -> None:
    with pytest.raises(GatewayError, match=words) as met:
        await prompt_texts([2, 99], single(), repository if known else None)
    assert (met.value.status, met.value.param) == (400, "prompt")
