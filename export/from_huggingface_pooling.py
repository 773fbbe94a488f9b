"""From token vectors to one sentence vector, as sentence-transformers' modules say it: pooling, dense layers, length 1.

A checkpoint of sentence-transformers lists its modules in modules.json, each with a config.json in a folder of its own.
One without that list is read as mean pooling and normalization, which is what most such models were trained with.

Source of the folders' format: https://www.sbert.net/docs/package_reference/sentence_transformer/models.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conch.errors import ExportError
from export.from_huggingface_checkpoint import read_json

Tensor = Any

# In the order in which sentence-transformers puts several modes side by side.
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_CONFIG_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A linear layer after pooling: the folder that holds it, and the name of its activation in torch.nn."""

    folder: Path
    activation: str


@dataclass(frozen=True)
class PoolingPlan:
    """How token vectors become one vector.

    ``transformer`` is the folder of the token model; ``max_length`` and ``lowercase`` are what
    sentence_bert_config.json says, None and False where it says nothing. ``prompt`` is put before every text.
    """

    transformer: Path
    modes: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""


def read_plan(folder: Path) -> PoolingPlan:
    """The plan of a checkpoint. Raises: ExportError at a module or a mode that is not known."""
    path = folder / "modules.json"
    if not path.is_file():
        return PoolingPlan(folder)
    try:
        modules = [(str(row["type"]).rsplit(".", 1)[-1], folder / row["path"]) for row in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError("modules.json cannot be read", where=path, got=error) from error
    transformer, normalize = folder, False
    modes: tuple[str, ...] = ("mean",)
    dense: list[Dense] = []
    for kind, place in modules:
        if kind == "Transformer":
            transformer = place
        elif kind == "Pooling":
            modes = _modes(read_json(place, "config.json"), place)
        elif kind == "Dense":
            dense.append(_dense(place))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise ExportError(
                "the sentence model has a module that conch cannot put into the graph",
                where=path,
                got=kind,
                expected="Transformer, Pooling, Dense, Normalize, Dropout",
                fix="write a FACTORY that returns the whole module, and use `conch export torch MODULE:FACTORY`",
            )
    if normalize and modules[-1][0] != "Normalize":
        raise ExportError("modules.json puts Normalize before another module", where=path, expected="Normalize last")
    sentence = read_json(transformer, "sentence_bert_config.json")
    prompts = read_json(folder, "config_sentence_transformers.json")
    return PoolingPlan(
        transformer,
        modes,
        tuple(dense),
        normalize,
        max_length=sentence.get("max_seq_length"),
        lowercase=bool(sentence.get("do_lower_case")),
        prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), "") or "",
    )


def _modes(config: dict[str, Any], where: Path) -> tuple[str, ...]:
    named = config.get("pooling_mode")  # newer files name one mode, or a list
    if named:
        found = {named} if isinstance(named, str) else set(named)
    else:
        found = {mode for key, mode in _CONFIG_KEYS.items() if config.get(key)}
    if not found or not found <= set(MODES):
        raise ExportError(
            "the pooling mode is not known",
            where=where / "config.json",
            got=", ".join(sorted(found)) or "none",
            expected=", ".join(MODES),
        )
    return tuple(mode for mode in MODES if mode in found)


def _dense(folder: Path) -> Dense:
    config = read_json(folder, "config.json")
    activation = str(config.get("activation_function", "Identity")).rsplit(".", 1)[-1]
    kind = getattr(torch.nn, activation, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise ExportError("a dense layer's activation is not one of torch.nn", where=folder, got=activation)
    return Dense(folder, activation)


def _attended(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Token vectors with the padding set to 0, and the number of real tokens: [b, n, d], [b, 1]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return states * weights, weights.sum(dim=1).clamp(min=1e-9)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    kept, count = _attended(states, mask)
    return kept.sum(dim=1) / count


def _mean_sqrt(states: Tensor, mask: Tensor) -> Tensor:
    kept, count = _attended(states, mask)
    return kept.sum(dim=1) / count.sqrt()


def _weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean with token i counted i times: in a causal model later tokens have seen more."""
    places = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=states.dtype)
    weights = (mask.to(states.dtype) * places.unsqueeze(0)).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(states.dtype).min).amax(dim=1)


def _last_token(states: Tensor, mask: Tensor) -> Tensor:
    """The last real token's vector, on whichever side the padding is: the place with the highest numbered 1."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype)
    last = (mask * places.unsqueeze(0)).argmax(dim=1)
    index = last.reshape(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1)


def _first_token(states: Tensor, mask: Tensor) -> Tensor:
    return states[:, 0]


_POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first_token,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]
    """A token model with everything after it: input_ids, attention_mask [b, n] -> the sentence's vector [b, d]."""

    def __init__(self, encoder: Any, plan: PoolingPlan) -> None:
        super().__init__()
        self.encoder = encoder
        self.modes = plan.modes
        self.normalize = plan.normalize
        self.dense = torch.nn.Sequential(*(layer for dense in plan.dense for layer in load_dense(dense)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Token vectors [b, n, h] -> pooled [b, h * modes] -> dense layers -> length 1."""
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        pooled = torch.cat([_POOL[mode](states, attention_mask) for mode in self.modes], dim=1)
        vector = self.dense(pooled)
        return torch.nn.functional.normalize(vector, p=2, dim=1) if self.normalize else vector


def load_dense(dense: Dense) -> list[Any]:
    """A dense layer's torch modules, with their weights. Raises: ExportError."""
    config = read_json(dense.folder, "config.json")
    try:
        layer = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        if (dense.folder / "model.safetensors").is_file():
            from safetensors.torch import load_file

            weights = load_file(dense.folder / "model.safetensors")
        else:
            weights = torch.load(dense.folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
        layer.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except Exception as error:  # each reader has exceptions of its own
        raise ExportError(
            "a dense layer of the sentence model cannot be read", where=dense.folder, got=error
        ) from error
    return [layer, getattr(torch.nn, dense.activation)()]
