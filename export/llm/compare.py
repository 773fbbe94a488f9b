"""Compare a converted language model with its source, token by token.

Both read the same tokens, and are asked at every position which one comes next. On the source's own greedy answers
that says whether the converted model would have answered the same, in one pass instead of one a token. fp16 must; of
int8 and int4 the share of equal tokens is reported, and the perplexity of a text beside the source's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ParityError
from conch.manifest import Parity
from conch.tensor_spec import Array
from export.llm.source import LlmSource, load_tokenizer

# Token ids [length] -> logits [length, vocabulary].
Logits = Callable[[Array], Array]

NEW_TOKENS = 24
# Of a longer text or context the beginning is read.
TEXT_TOKENS = 512
# Two tokens nearer than this share of the range of all logits have no order that rounding could change.
TIE = 0.005
# A converted model that is more perplexed than this is broken, whatever its format.
MOST_PERPLEXITY_RATIO = 2.0


@dataclass(frozen=True)
class Prompt:
    """A question, and the tokens that the model reads: as a chat where it has a template (``text`` is rendered)."""

    question: str
    text: str
    ids: Array
    is_chat: bool


@dataclass(frozen=True)
class Reading:
    """What a model expects at each position of a text: the best token, by how much it leads, and the text's loss.

    ``best`` and ``lead`` are [length]; ``lead`` is a share of the range of the logits. ``loss`` is in nats a token.
    """

    best: Array
    lead: Array
    loss: float

    @property
    def perplexity(self) -> float:
        """How many tokens the model wavers between, on average."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class Answer:
    """The source's greedy answer to a prompt: its tokens, and how clear the choice of each was."""

    prompt: Prompt
    tokens: Array
    lead: Array

    @property
    def sequence(self) -> Array:
        """Prompt and answer."""
        return np.concatenate([self.prompt.ids, self.tokens])


@dataclass(frozen=True)
class Expected:
    """What the source says: greedy answers to prompts, and its reading of a text."""

    answers: tuple[Answer, ...]
    text: Array
    reading: Reading


@dataclass(frozen=True)
class Agreement:
    """How a converted model agrees with its source.

    ``greedy_tokens`` and ``text_tokens`` are how many were compared, the agreements the shares that are equal.
    """

    greedy_tokens: int
    greedy_agreement: float
    text_tokens: int
    text_agreement: float
    perplexity: float
    source_perplexity: float

    def to_json(self) -> dict[str, float]:
        """For the manifest."""
        return {key: round(value, 6) for key, value in asdict(self).items()}

    def rows(self) -> tuple[Parity, ...]:
        """The same as rows of a report."""
        return (
            Parity("greedy tokens", self.greedy_tokens, 1 - self.greedy_agreement, 1.0, None, self.greedy_agreement),
            Parity("tokens of a text", self.text_tokens, 1 - self.text_agreement, 1.0, None, self.text_agreement),
        )


def prompts(source: LlmSource) -> tuple[Prompt, ...]:
    """The source's questions as its tokenizer renders and cuts them."""
    tokenizer = load_tokenizer(source.folder)
    made = []
    for question in source.questions:
        text, chat = question, source.facts.chat_template is not None
        if chat:
            messages = [{"role": "user", "content": question}]
            text = tokenizer.apply_chat_template(
                messages, chat_template=source.facts.chat_template, tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(text, add_special_tokens=not chat)["input_ids"]
        made.append(Prompt(question, text, np.asarray(ids, np.int64), chat))
    return tuple(made)


def ask_source(source: LlmSource, module: Any) -> Expected:
    """The greedy answers and the reading of the torch module."""
    import torch
    from transformers import GenerationConfig

    stops = list(source.facts.stop_token_ids)
    # Not the checkpoint's own: that may ask for sampling, or penalties.
    greedy = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=True,
        eos_token_id=stops,
        pad_token_id=stops[0] if stops else 0,
    )

    def logits(ids: Array) -> Array:
        return np.asarray(module(input_ids=torch.from_numpy(ids)[None]).logits[0].float().numpy())

    answers = []
    with torch.inference_mode():
        for prompt in prompts(source):
            whole = module.generate(
                input_ids=torch.from_numpy(prompt.ids)[None],
                attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.int64),
                generation_config=greedy,
            )[0].numpy()
            reading = read(logits, whole)
            answers.append(Answer(prompt, whole[len(prompt.ids) :], reading.lead[len(prompt.ids) - 1 : -1]))
        tokenizer = load_tokenizer(source.folder)
        most = min(TEXT_TOKENS, source.facts.context_length)
        text = np.asarray(tokenizer(source.text, truncation=True, max_length=most)["input_ids"], np.int64)
        return Expected(tuple(answers), text, read(logits, text))


def read(logits: Logits, ids: Array) -> Reading:
    """What a model expects at each position of ``ids`` [length]."""
    scores = np.asarray(logits(ids), np.float32)  # [length, vocabulary]
    best = scores.argmax(axis=1)
    top = np.partition(scores, -2, axis=1)[:, -2:]  # the second and the first
    span = np.maximum(scores.max(axis=1) - scores.min(axis=1), 1e-9)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    following = shifted[np.arange(len(ids) - 1), ids[1:]] - log_sum[:-1]
    loss = float(-following.mean()) if len(ids) > 1 else 0.0
    return Reading(best, (top[:, 1] - top[:, 0]) / span, loss)


def openvino_logits(model: Path) -> Logits:
    """The logits of a converted model, computed in full precision: the file is judged, not a machine's fast paths."""
    import openvino

    properties = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
    names = {name for tensor in request.model_inputs for name in tensor.get_names()}

    def logits(ids: Array) -> Array:
        every = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "position_ids": np.arange(len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        request.reset_state()  # the cache of what was read before
        request.infer({name: array for name, array in every.items() if name in names})
        return np.array(request.get_tensor("logits").data[0])

    return logits


def compare(expected: Expected, logits: Logits, weight_format: str) -> Agreement:
    """Hold a converted model to its source.

    Raises: ParityError, for fp16 when a greedy token differs, and for all when the text perplexes it far more.
    """
    equal: list[Array] = []
    for answer in expected.answers:
        start = len(answer.prompt.ids)
        best = read(logits, answer.sequence).best[start - 1 : -1]
        same = best == answer.tokens
        if weight_format == "fp16":
            _check_tokens(answer, best, clear=answer.lead > TIE)
        equal.append(same)
    reading = read(logits, expected.text)
    agreement = Agreement(
        greedy_tokens=sum(len(same) for same in equal),
        greedy_agreement=_share(equal),
        text_tokens=len(expected.text),
        text_agreement=_share([reading.best == expected.reading.best]),
        perplexity=reading.perplexity,
        source_perplexity=expected.reading.perplexity,
    )
    if not agreement.perplexity <= MOST_PERPLEXITY_RATIO * agreement.source_perplexity:
        raise ParityError(
            "the converted model no longer knows its language",
            where=f"perplexity of a text of {len(expected.text)} tokens, --weight-format {weight_format}",
            got=f"{agreement.perplexity:.4g}",
            expected=f"at most {MOST_PERPLEXITY_RATIO:g} times the source's {agreement.source_perplexity:.4g}",
            fix="export with int8 or fp16, or int4 with a smaller --group-size",
        )
    return agreement


def _check_tokens(answer: Answer, best: Array, clear: Array) -> None:
    """Raise ParityError at the first token that is not the source's, where the source's choice was clear."""
    wrong = np.flatnonzero((best != answer.tokens) & clear)
    if wrong.size:
        place = int(wrong[0])
        raise ParityError(
            "the converted model does not answer as its source",
            where=f"token {place + 1} of the answer to {answer.prompt.question!r}",
            got=f"token {int(best[place])}",
            expected=f"token {int(answer.tokens[place])}",
            fix="find what the conversion changed: another optimum-intel, or an architecture that it knows badly",
        )


def _share(equal: Sequence[Array]) -> float:
    joined = np.concatenate(equal) if equal else np.ones(1, bool)
    return float(joined.mean()) if joined.size else 1.0


def describe(agreement: Agreement) -> Mapping[str, str]:
    """The figures as text for people."""
    return {
        "greedy tokens equal": f"{agreement.greedy_agreement:.1%} of {agreement.greedy_tokens}",
        "tokens of a text equal": f"{agreement.text_agreement:.1%} of {agreement.text_tokens}",
        "perplexity": f"{agreement.perplexity:.2f} (the source's: {agreement.source_perplexity:.2f})",
    }
