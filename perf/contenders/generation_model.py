"""A Llama of about 100 M random parameters, built here: as transformers' checkpoint, and exported for our engine.

    python -m perf.contenders.generation_model CHECKPOINT REPOSITORY WEIGHT_FORMAT

A process of its own: torch and the converter are out of memory when it is measured. What it says is nonsense, at the
speed of a trained one.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console
from perf.contenders.processes import ROOT

VOCABULARY = 16_000
# Text enough for so many byte pairs: the standard library's sources.
_SOURCES_BYTES = 6_000_000


def model_name(weight_format: str) -> str:
    """Its name in the repository."""
    return f"llama_{weight_format}"


def prepare(checkpoint: Path, repository: Path, weight_format: str) -> Path:
    """Build and export what is not there, or has other code than is here; the version's folder. Raises: ConchError."""
    store, name = Repository(repository), model_name(weight_format)
    if not (checkpoint / "config.json").is_file() or not _is_current(store, name):
        console.print(f"building a Llama in {checkpoint}, exporting it to {repository} as {name}")
        module = "perf.contenders.generation_model"
        command = [sys.executable, "-m", module, str(checkpoint), str(repository), weight_format]
        ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        if ended.returncode:
            raise ConchError("the model could not be built and exported", fix="see what it says above")
    return store.version_path(name, store.latest(name)).absolute()


def _is_current(store: Repository, name: str) -> bool:
    """Whether the latest version serves with the code that an export would copy now."""
    if name not in store.model_names() or not store.versions(name):
        return False
    served = store.version_path(name, store.latest(name))
    code = (ROOT / "python_backends" / "generate").glob("*.py")
    return all((served / file.name).is_file() and filecmp.cmp(file, served / file.name, shallow=False) for file in code)


def build(folder: Path) -> None:
    """Write a checkpoint with tokenizer. The end of text never comes: its row of the tied embedding is zero."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> object:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _texts() -> Iterator[str]:
    left = _SOURCES_BYTES
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")[:left]
        left -= len(text)
        yield text


def main(checkpoint: Path, repository: Path, weight_format: str) -> None:
    """Build the checkpoint if it is missing, and export it. Raises: ConchError."""
    if not (checkpoint / "config.json").is_file():
        build(checkpoint)
    from export.llm import source, steps
    from export.llm.options import OpenVinoOptions

    name = model_name(weight_format)
    options = OpenVinoOptions(name=name, repository=repository, trial=False, weight_format=weight_format)
    steps.run(source.load(str(checkpoint), options), options)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except ConchError as error:
        console.print(str(error), markup=False)
        raise SystemExit(1) from error
