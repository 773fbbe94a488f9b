"""Chat: a toy Llama of under a million weights, trained here in less than a minute on made dialogues, as int8.

It knows a few dozen sentences about serving models (see chat_dialogues) and nothing else: it is here to show streaming,
chats and the engine without a download. A real model is one command: ``conch export llm Qwen/Qwen2.5-0.5B-Instruct``.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.tensor_spec import Array
from export.llm.convert import check_installed
from export.llm.options import LlmOptions, OpenVinoOptions
from export.llm.source import LlmSource, read_facts
from export.quiet import quiet
from export.samples import Question
from export.samples.chat_dialogues import Message, dialogues, held_out, trained

CONTEXT_LENGTH = 512
VOCABULARY = 768
STEPS = 450
RATE = 5e-3
BATCH = 8
TOKENS = 96  # in each row of a batch: two or three dialogues
DIALOGUES = 4000
SEED = 5

# The roles are tokens of their own; what a model of this size cannot know, such as tools, is refused.
TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role not in ('system', 'user', 'assistant') -%}
{{ raise_exception('this model knows no role ' + message.role) }}
{%- endif -%}
{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif -%}
"""
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def _question(text: str, expected: str) -> Question:
    inputs = {
        "text_input": np.array([""], dtype=object),
        "chat": np.array([json.dumps({"messages": [{"role": "user", "content": text}]})], dtype=object),
        "sampling_parameters": np.array(['{"temperature": 0, "max_tokens": 80}'], dtype=object),
    }
    return Question(text, inputs, expected)


QUESTIONS = (
    _question("What is streaming?", "Streaming sends each piece of an answer as soon as it is made"),
    _question("Can you explain a token?", "A token is a piece of text"),
    _question("Why is the prefix cache important?", "Many chats begin with the same instructions"),
)


def options(repository: Path) -> LlmOptions:
    """int8; a small cache, as the context is short."""
    return OpenVinoOptions(name="chat", repository=repository, cache_gb=1)


def source(options: LlmOptions) -> LlmSource:
    """Train the tokenizer and the model. Takes most of a minute on two cores."""
    check_installed()  # before the training, not after it
    folder = tempfile.TemporaryDirectory(prefix="conch-chat-")
    path = Path(folder.name)
    with quiet():
        tokenizer = train_tokenizer()
        model = train(tokenizer)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        right = accuracy(model, tokenizer)
    asked = held_out()
    weights = sum(p.numel() for p in model.parameters())
    known = (
        f"a toy of {weights:,} weights: {right:.0%} of {len(asked)} questions in words that it was not trained on get "
        "the right answer, and it knows nothing else"
    )
    return LlmSource(
        folder=path,
        facts=read_facts(path, options),
        provenance={"kind": "sample", "sample": "chat", "task": "text-generation", "accuracy": known},
        questions=tuple(one.question for one in asked[::6]),
        text="".join(f"<|user|>{one.question}<|end|><|assistant|>{one.answer}<|end|>" for one in asked[::6]),
        notes=(known,),
        held=folder,
    )


def train_tokenizer() -> Any:
    """A byte-pair tokenizer of the dialogues, with the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{one.question} {one.answer}" for one in trained()), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL[2:]),
        chat_template=TEMPLATE,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def train(tokenizer: Any, steps: int = STEPS, rate: float = RATE) -> Any:
    """A small Llama that has read the dialogues; the same for a seed and a machine."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its matrices are too small to share, and waiting for each other costs more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=4,
                num_attention_heads=3,
                num_key_value_heads=3,
                max_position_embeddings=CONTEXT_LENGTH,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                attn_implementation="sdpa",
            )
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.1)
        model.train()
        for ids, labels in batches(tokenizer, steps):  # [BATCH, TOKENS] each
            loss = model(input_ids=torch.from_numpy(ids), labels=torch.from_numpy(labels)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
    torch.set_num_threads(threads)
    return model.eval()


def batches(tokenizer: Any, steps: int) -> Iterator[tuple[Array, Array]]:
    """``steps`` batches of dialogues, as many to a row as it holds, and what is to be learnt of them.

    That is the answers: of all else the label is -100, which the loss leaves out.
    """
    made = itertools.cycle([_labelled(tokenizer, chat) for chat in dialogues(DIALOGUES, SEED)])
    for _ in range(steps):
        rows = [_row(made) for _ in range(BATCH)]
        yield np.array([ids for ids, _ in rows]), np.array([labels for _, labels in rows])


def _labelled(tokenizer: Any, chat: Sequence[Message]) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for message in chat:
        role, *said = encode(tokenizer, [message])
        ids += [role, *said]
        labels += [-100, *(said if message["role"] == "assistant" else [-100] * len(said))]
    return ids, labels


def _row(made: Iterator[tuple[list[int], list[int]]]) -> tuple[list[int], list[int]]:
    """Dialogues one after the other, the last one cut."""
    ids: list[int] = []
    labels: list[int] = []
    while len(ids) < TOKENS:
        more_ids, more_labels = next(made)
        ids += more_ids
        labels += more_labels
    return ids[:TOKENS], labels[:TOKENS]


def encode(tokenizer: Any, chat: Sequence[Message], *, answer: bool = False) -> list[int]:
    """A chat's tokens; with ``answer`` up to where the model is to go on."""
    text = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in chat) + ("<|assistant|>" if answer else "")
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def accuracy(model: Any, tokenizer: Any) -> float:
    """The share of held-out questions whose greedy answer is the right one, word for word."""
    import torch

    right = 0
    asked = held_out()
    with torch.inference_mode():
        for one in asked:
            ids = encode(tokenizer, [{"role": "user", "content": one.question}], answer=True)
            due = encode(tokenizer, [{"role": "assistant", "content": one.answer}])[1:]
            # All tokens of the right answer at once: greedy would have chosen it if each is the most likely one.
            best = model(input_ids=torch.tensor([ids + due])).logits[0].argmax(-1)[len(ids) - 1 : -1]
            right += best.tolist() == due
    return right / len(asked)
