"""Version folders of our Python models, as export writes them, and small tokenizers trained on the spot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SOURCES = Path(__file__).resolve().parents[3] / "python_backends"

VersionFolder = Callable[..., Path]

SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "A model repository holds versions; each version is a folder of files.",
    "Don't panic: unbelievable, re-tokenized words aren't a problem!",
    "서울에서 온 철수는 오늘 모델을 배포했다.",
    "안녕하세요, 반갑습니다. 이 문장은 한국어입니다.",
    "naïve café résumé coöperate Ångström",
    "emoji 🙂🚀👩‍👩‍👧 and numbers 3.14159, 2024-10-01, e-mail a.b@c.de",
    "العربية हिन्दी 中文字符 日本語のテキスト",
    "John Smith works for Acme Corporation in New York City.",
)


@dataclass(frozen=True)
class SmallTokenizer:
    """A tokenizer.json on disk and the names of its special tokens, for transformers."""

    path: Path
    special: Mapping[str, str]


@pytest.fixture
def version_folder(tmp_path: Path) -> VersionFolder:
    """A function (backend, assets) -> the version folder of a model made of that backend and those files."""

    def make(backend: str, assets: Mapping[str, str | bytes | Path] | None = None) -> Path:
        folder = tmp_path / backend / "1"
        if not folder.exists():
            shutil.copytree(SOURCES / backend, folder, ignore=shutil.ignore_patterns("__pycache__"))
            (folder / "__pycache__").touch()
        for name, content in (assets or {}).items():
            if isinstance(content, Path):
                shutil.copy(content, folder / name)
            else:
                (folder / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return folder

    return make


def bert(lowercase: bool = True) -> Tokenizer:
    """WordPiece with [CLS] and [SEP], as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]", length=128)
    tokenizer.enable_truncation(128)
    return tokenizer


def roberta() -> Tokenizer:
    """Byte-level BPE with RoBERTa's special tokens; its pad id is 1, its token types are all 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")), trim_offsets=True
    )
    return tokenizer


def gpt2() -> Tokenizer:
    """Byte-level BPE without special tokens around the text, and without a pad token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram over words marked with ▁, as SentencePiece models (XLM-R, T5) have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=350, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
    )
    return tokenizer


BERT_TOKENS = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
TOKENIZERS = {
    "bert": (bert, BERT_TOKENS),
    "bert_cased": (lambda: bert(lowercase=False), BERT_TOKENS),
    "roberta": (roberta, {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}),
    "gpt2": (gpt2, {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "unigram": (unigram, {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}),
}


@pytest.fixture(scope="session")
def small_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SmallTokenizer]:
    """One tokenizer.json of each kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {}
    for name, (build, special) in TOKENIZERS.items():
        path = folder / f"{name}.json"
        build().save(str(path))
        made[name] = SmallTokenizer(path, special)
    return made
