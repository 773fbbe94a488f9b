"""A Hugging Face checkpoint: found on disk or fetched from a hub, checked to be whole before anything is built on it.

Knows nothing of tasks beyond the Auto class that it is told to load. Code from a checkpoint never runs: remote code is
refused; weights come from safetensors, or from a .bin file through torch's weights-only reader, which runs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.errors import ExportError
from export.quiet import quiet

# What we can use of a checkpoint; other frameworks' weights and other people's exports are not fetched.
_WANTED = ("*.json", "*.txt", "*.model", "*.jinja")
_UNWANTED = ("onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.ot", "*.msgpack", "*.h5")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on this disk.

    ``origin`` is what the user named; ``revision`` the hub's commit, None for a folder.
    """

    folder: Path
    origin: str
    revision: str | None

    @property
    def pickled(self) -> bool:
        """Whether the weights that are read are a .bin file."""
        return not any((self.folder / name).is_file() for name in _WEIGHTS if "safetensors" in name)


def find(path_or_id: str, *, weights: bool = True) -> Checkpoint:
    """The checkpoint in a folder, or under a hub's id, there with its ``weights`` or without.

    Raises: ExportError, saying why a hub gave nothing.
    """
    local = Path(path_or_id).expanduser()
    if local.is_dir():
        return Checkpoint(local, path_or_id, None)
    if local.exists() or path_or_id.startswith((".", "/", "~")) or path_or_id.count("/") > 1:
        raise ExportError(
            "there is no such model folder",
            where=path_or_id,
            got="a file" if local.exists() else "nothing at that path",
            expected="a folder with config.json, weights and tokenizer, as save_pretrained writes it, or a hub's id",
        )
    folder = _fetch(path_or_id, weights)
    return Checkpoint(folder, path_or_id, folder.name)


def _fetch(repo_id: str, weights: bool) -> Path:
    """Download a checkpoint into the hub's cache; safetensors where there are any. Raises: ExportError."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    give_folder = "give the path of a local folder instead"
    try:
        wanted = [*_WANTED, *(("*.safetensors",) if weights else ())]
        folder = Path(snapshot_download(repo_id, allow_patterns=wanted, ignore_patterns=list(_UNWANTED)))
        if weights and not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(repo_id, allow_patterns=[*wanted, "*.bin"], ignore_patterns=list(_UNWANTED))
            )
        return folder
    except GatedRepoError as error:
        raise ExportError(
            f"{repo_id} is gated: its owner asks for an agreement",
            where=constants.ENDPOINT,
            fix=f"accept its terms on the hub and run `hf auth login`, or {give_folder}",
        ) from error
    except RepositoryNotFoundError as error:
        raise ExportError(
            f"the hub has no model {repo_id}, or it is private",
            where=constants.ENDPOINT,
            got=repo_id,
            fix=f"check the name, run `hf auth login` for a private one, or {give_folder}",
        ) from error
    except HFValidationError as error:
        raise ExportError(
            "that is neither a folder nor a hub's id",
            got=repo_id,
            expected="a folder, or an id like sentence-transformers/all-MiniLM-L6-v2",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        offline = bool(constants.HF_HUB_OFFLINE)
        raise ExportError(
            f"{repo_id} is no folder here, is not in the hub's cache, and the hub cannot be asked",
            where=constants.ENDPOINT,
            got="HF_HUB_OFFLINE is set" if offline else str(error).splitlines()[0].removeprefix("Got: "),
            fix=("unset HF_HUB_OFFLINE, or " if offline else "check the network, or ") + give_folder,
        ) from error


def check_files(folder: Path, *, tokenizer: bool = False, image_processor: bool = False) -> None:
    """Raise ExportError unless the files that the task needs are there.

    Without this check transformers would go on: it makes an empty tokenizer up where there is none.
    """
    needed = [("config.json", ("config.json",)), ("weights", _WEIGHTS)]
    if tokenizer:
        needed.append(("a tokenizer", _TOKENIZERS))
    if image_processor:
        needed.append(("the image processor's settings", _PROCESSORS))
    missing = [(what, names) for what, names in needed if not any((folder / name).is_file() for name in names)]
    if not missing:
        return
    fix = "save all of it into one folder: model.save_pretrained(DIR)"
    if any(what == "a tokenizer" for what, _ in missing):
        fix += ", tokenizer.save_pretrained(DIR)"
    if any(what.startswith("the image") for what, _ in missing):
        fix += ", image_processor.save_pretrained(DIR)"
    raise ExportError(
        "the model folder lacks " + " and ".join(what for what, _ in missing),
        where=folder,
        got=", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder",
        expected="; ".join(" or ".join(names) for _, names in missing),
        fix=fix,
    )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object beside the weights, or {} where there is none. Raises: ExportError."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{name} cannot be read", where=path, got=error) from error
    return document if isinstance(document, dict) else {}


def load_model(checkpoint: Checkpoint, auto_class: str, task: str, *, optional_weights: str = "") -> Any:
    """The torch module of a checkpoint, in float32 and in evaluation mode, with every weight from the file.

    ``auto_class`` names a class of transformers. ``optional_weights`` is the prefix of weights that the task does not
    use, so that they may be missing. Raises: ExportError when the task does not fit the checkpoint.
    """
    import torch
    import transformers

    try:
        with quiet():
            # Eager attention is plain matrix products: fewer nodes, and fusable by optimizers, where the fused kernel
            # is taken apart again for ONNX.
            model, report = getattr(transformers, auto_class).from_pretrained(
                checkpoint.folder,
                attn_implementation="eager",
                dtype=torch.float32,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise _not_loaded(checkpoint, task, error) from error
    untrained = sorted(k for k in report["missing_keys"] if not optional_weights or not k.startswith(optional_weights))
    untrained += sorted(str(row[0]) for row in report["mismatched_keys"])
    if untrained:
        raise ExportError(
            f"the checkpoint is not trained for {task}: it lacks weights that the task needs",
            where=checkpoint.folder,
            got=f"{', '.join(model.config.architectures or ['?'])}, without {_first(untrained)}",
            expected=type(model).__name__,
            fix="name the task that the checkpoint was trained for with --task, or fine-tune it first",
        )
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # a cache of keys and values is of no use to a single pass, and an output more
    return model.eval()


def _not_loaded(checkpoint: Checkpoint, task: str, error: Exception) -> ExportError:
    text = str(error)
    config = read_json(checkpoint.folder, "config.json")
    architectures = ", ".join(config.get("architectures") or ()) or config.get("model_type", "?")
    if "trust_remote_code" in text:
        return ExportError(
            "the checkpoint brings model code of its own, which conch does not run",
            where=checkpoint.folder,
            got=architectures,
            fix="write a FACTORY that returns the module, and use `conch export torch MODULE:FACTORY`",
        )
    if "Unrecognized configuration class" in text:
        return ExportError(
            f"the architecture has no variant for {task}",
            where=checkpoint.folder,
            got=architectures,
            fix="name the task that the checkpoint was trained for with --task",
        )
    return ExportError(
        "transformers cannot load the checkpoint",
        where=checkpoint.folder,
        got=f"{architectures}: {type(error).__name__}: {text.strip().splitlines()[0] if text.strip() else ''}",
        fix="the files may be damaged, or of a newer transformers: try AutoModel.from_pretrained(DIR) on them",
    )


def _first(names: list[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def weights_notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What a user should know of the weights' file."""
    if not checkpoint.pickled:
        return ()
    return ("the weights are a pickle (.bin); torch read its tensors alone, and ran nothing in it",)


def provenance(checkpoint: Checkpoint, task: str, model: Any) -> dict[str, Any]:
    """Where a model comes from, for the manifest."""
    import torch
    import transformers

    return {
        "kind": "huggingface",
        "task": task,
        "model": checkpoint.origin,
        "revision": checkpoint.revision,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": "pickle, read by torch's weights-only loader" if checkpoint.pickled else "safetensors",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
