"""A Llama of random weights with a BPE tokenizer and a chat template, converted for OpenVINO: real files, no sense.

Its greedy texts differ from prompt to prompt and hold Korean and emoji in pieces of bytes, so that a test can fail.
Seeded, so that every session sees the same model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conch.model_config import InstanceGroup, ModelSettings, build_config, render
from export.llm.convert import PACKAGES, convert
from export.llm.write_generate import SIGNATURE

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    "The parcel arrived on Monday, but the box was open. Nobody had signed for it.",
    "배송이 너무 늦어요. 환불을 요청했는데 아직 답장을 받지 못했습니다.",
    "Café, naïve, 12.50 €, e-mail: someone@example.org 🙂🚀 and 中文字符 日本語",
    "A model repository holds versions; each version is a folder of files. 안녕하세요, 반갑습니다.",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT_LENGTH = 8192  # long enough that a text is still being made when a test looks
LAYERS, HIDDEN, HEADS = 2, 64, 4


def tokenizer() -> Any:
    """Byte-level BPE of 400 tokens, as transformers wraps it; <s> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=CHAT_TEMPLATE
    )


def write_checkpoint(folder: Path, *, seed: int = 7, hidden_size: int = HIDDEN, layers: int = LAYERS) -> Path:
    """The model as save_pretrained writes it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.mul_(6.0)  # what it says then depends on what it read
    words.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def converted() -> Path:
    """The folder of converted files. Converting takes half a minute, so it is kept for other processes and sessions."""
    packages = [importlib.metadata.version(name) for name in PACKAGES]
    digest = hashlib.sha256(repr((Path(__file__).read_bytes(), packages)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"conch-tiny-llama-{digest}"
    if not folder.is_dir():
        work = Path(tempfile.mkdtemp(prefix="conch-tiny-llama-"))
        convert(write_checkpoint(work / "checkpoint"), work / "openvino", weight_format="int8")
        with contextlib.suppress(OSError):  # another process was first
            (work / "openvino").rename(folder)
        shutil.rmtree(work)
    return folder


def write_version(folder: Path, *, draft: bool = False, adapters: Mapping[str, int] | None = None) -> Path:
    """A version folder as export writes it; ``adapters`` are random, by name and seed."""
    shutil.copytree(converted(), folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "python_backends" / "generate", folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "__pycache__").touch()
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    limits = {"format": 1, "context_length": CONTEXT_LENGTH, "stop_token_ids": [1], "weight_format": "int8"}
    (folder / "generate.json").write_text(json.dumps(limits), encoding="utf-8")
    if draft:
        shutil.copytree(converted(), folder / "draft", dirs_exist_ok=True)
    for name, seed in (adapters or {}).items():
        write_adapter(folder / "adapters" / f"{name}.safetensors", seed)
    return folder


def write_adapter(path: Path, seed: int, rank: int = 4) -> Path:
    """A LoRA adapter of random weights, named as PEFT names them."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for layer in range(LAYERS):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, HIDDEN)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(HIDDEN, rank)
    save_file(tensors, str(path))
    return path


def write_model(repository: Path, name: str, parameters: Mapping[str, str] | None = None, **version: Any) -> Path:
    """A model of one version in a repository; returns its version folder."""
    settings = ModelSettings(
        backend="python",
        instance_groups=(InstanceGroup(1, "KIND_CPU"),),
        parameters=dict(parameters or {}),
        decoupled=True,
    )
    folder = write_version(repository / name / "1", **version)
    config = render(build_config(name, SIGNATURE, settings))
    (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder
