"""From a checkpoint to OpenVINO files, by optimum-intel's own command in a process of its own.

So its memory is given back when it is done, and what it prints can be shown when it fails. Nothing is fetched: the
checkpoint lies on this disk.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from conch.errors import ExportError

# optimum-intel 2.2 needs transformers < 5.6, and names torchvision, which has no build for a CPU-only torch and then
# breaks transformers: hence --no-deps, beside an extra that brings what the three really use.
CONVERTER = "optimum==2.3.0 optimum-intel==2.2.0 nncf==3.4.0"
INSTALL = f"pip install -e '.[llm]' && pip install --no-deps {CONVERTER} (in conch's checkout)"
PACKAGES = ("optimum", "optimum-intel", "nncf", "openvino", "openvino-tokenizers", "transformers", "torch")

MODEL_FILE = "openvino_model.xml"
TOKENIZER_FILES = ("openvino_tokenizer.xml", "openvino_detokenizer.xml", "tokenizer.json")


def check_installed() -> None:
    """Raise ExportError, with the commands to install it, unless the converter is there."""
    missing = [name for name in ("optimum.intel", "nncf", "openvino", "openvino_genai") if not _is_there(name)]
    if missing:
        raise ExportError(
            "converting a language model needs packages that are not installed",
            got=f"no {', '.join(missing)}",
            expected="the extra llm, and optimum-intel with nncf",
            fix=INSTALL,
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def convert(checkpoint: Path, folder: Path, *, weight_format: str, group_size: int | None = None) -> None:
    """Write a checkpoint's OpenVINO model, tokenizer and detokenizer into a new folder. Raises: ExportError."""
    check_installed()
    arguments = ["export", "openvino", "--model", str(checkpoint), "--task", "text-generation-with-past"]
    arguments += ["--weight-format", weight_format]
    if weight_format == "int4" and group_size:  # without it, optimum takes what it knows to suit the model
        arguments += ["--group-size", str(group_size)]
    command = [sys.executable, "-c", "from optimum.commands.optimum_cli import main; main()", *arguments, str(folder)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ExportError(
            "optimum-intel could not convert the model",
            where=checkpoint,
            got="\n".join(_last_lines(done.stderr or done.stdout)) or f"exit status {done.returncode}",
            fix="if the architecture is new, it may need a newer optimum-intel; "
            "if memory ran out, convert on a larger machine and publish the version folder",
        )
    absent = [name for name in (MODEL_FILE, *TOKENIZER_FILES) if not (folder / name).is_file()]
    if absent:
        raise ExportError(
            "the converter left files out, which serving needs",
            where=checkpoint,
            got=f"no {', '.join(absent)}",
            fix="the model needs a fast tokenizer (tokenizer.json) that openvino-tokenizers knows",
        )


def _last_lines(text: str, count: int = 3) -> list[str]:
    return [line for line in text.splitlines() if line.strip()][-count:]
