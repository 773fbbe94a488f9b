"""Hugging Face checkpoints of a few thousand random weights, written as save_pretrained writes real ones.

Seeded, so that a test sees the same numbers every time. Tokenizers are trained on the texts below in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = (
    "ok",
    "The parcel arrived on Monday, but the box was open.",
    "Maria Jansen moved from Rotterdam to Lisbon in 2019.",
    "배송이 너무 늦어요. 환불을 요청했는데 아직 답장을 받지 못했습니다.",
    "It was not a bad film, only a long one: the first hour says what the next two say again.",
    "Café, naïve, 12.50 €, e-mail: someone@example.org",
)
LABELS = ("calm", "angry", "unsure")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
POSITIONS = 40
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@dataclass(frozen=True)
class Family:
    """An architecture: its name in transformers' class names, its tokenizer and its configuration."""

    name: str
    tokenizer: Callable[[], Any]
    config: Callable[..., Any]


def wordpiece() -> Any:
    """BERT's tokenizer: lower-case word pieces, [CLS] a [SEP] b [SEP], token types."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return _fast(inner, names, pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]")


def byte_level() -> Any:
    """RoBERTa's tokenizer: byte-level pairs, <s> a </s></s> b </s>, no token types."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _fast(inner, ["input_ids", "attention_mask"], pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")


def unigram() -> Any:
    """XLM-RoBERTa's tokenizer: sentence pieces by their probability."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _fast(inner, ["input_ids", "attention_mask"], pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>")


def _fast(inner: Any, names: list[str], *, pad: str, unk: str, cls: str, sep: str, mask: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_input_names=names,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
    )


def _config(class_name: str, **defaults: Any) -> Callable[..., Any]:
    def build(**more: Any) -> Any:
        import transformers

        return getattr(transformers, class_name)(**{**defaults, **more})

    return build


FAMILIES = {
    family.name: family
    for family in (
        Family("Bert", wordpiece, _config("BertConfig", **SMALL, max_position_embeddings=POSITIONS)),
        # Two rows of the table are before the first position.
        Family("Roberta", byte_level, _config("RobertaConfig", **SMALL, max_position_embeddings=POSITIONS + 2)),
        Family("XLMRoberta", unigram, _config("XLMRobertaConfig", **SMALL, max_position_embeddings=POSITIONS + 2)),
        Family("MPNet", byte_level, _config("MPNetConfig", **SMALL, max_position_embeddings=POSITIONS + 2)),
        Family(
            "DistilBert",
            wordpiece,
            _config(
                "DistilBertConfig", dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=POSITIONS
            ),
        ),
    )
}


def write_text_model(folder: Path, family: str = "Bert", head: str = "Model", **config: Any) -> Path:
    """A text model with its tokenizer; ``head`` ends the class's name, e.g. ForSequenceClassification."""
    import torch
    import transformers

    torch.manual_seed(7)
    tokenizer = FAMILIES[family].tokenizer()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = getattr(transformers, family + head)(FAMILIES[family].config(**ids, **config))
    _spread(model)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def labels(names: tuple[str, ...]) -> dict[str, Any]:
    """The configuration's entries for these class names."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def write_image_model(folder: Path, family: str = "ViT") -> Path:
    """An image classifier of 32 x 32 pixels with its image processor: ViT, ConvNext or ResNet."""
    import torch
    import transformers

    torch.manual_seed(7)
    config: dict[str, Any] = {
        "ViT": {**SMALL, "image_size": 32, "patch_size": 8},
        "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    }[family]
    chosen = getattr(transformers, f"{family}Config")(**config, **labels(LABELS))
    model = getattr(transformers, f"{family}ForImageClassification")(chosen)
    _spread(model)
    if family == "ViT":
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    else:
        processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Larger weights than an untrained model has: answers then differ from input to input, so that a test can fail."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name.lower():
                parameter.mul_(8.0)
