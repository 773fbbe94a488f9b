"""LoRA adapters: what PEFT keeps in adapter_config.json goes into the weights, and what cannot is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conch.errors import ExportError
from export.llm import adapters
from export.llm.options import OpenVinoOptions

A, B = "base_model.model.model.layers.0.q_proj.lora_A.weight", "base_model.model.model.layers.0.q_proj.lora_B.weight"


def written_by_peft(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    save_file({A: torch.ones(2, 3), B: torch.ones(3, 2)}, folder / "adapter_model.safetensors")
    if config:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1.0),
        ({"r": 2, "lora_alpha": 16}, 8.0),
        ({"r": 4, "lora_alpha": 2}, 0.5),
        ({"r": 4, "lora_alpha": 2, "use_rslora": True}, 1.0),
        ({"r": 2, "lora_alpha": 16, "rank_pattern": {}, "alpha_pattern": {}}, 8.0),
    ],
)
def test_the_scale_is_in_the_weights(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    adapters.write(written_by_peft(tmp_path / "lora", **config), tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert tensors[A].unique().tolist() == [1.0]
    assert tensors[B].unique().tolist() == [scale]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 8}}, "scales of its own"),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 8}}, "scales of its own"),
        ({"r": 4}, "rank and alpha"),
        ({"lora_alpha": 4}, "rank and alpha"),
    ],
)
def test_a_scale_that_cannot_be_told_is_refused_before_any_work(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = written_by_peft(tmp_path / "lora", **config)
    with pytest.raises(ExportError, match=told):
        OpenVinoOptions("x", adapters={"a": folder}).check()


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no name for an adapter"):
        OpenVinoOptions("x", adapters={name: written_by_peft(tmp_path / "lora")}).check()


def test_a_file_without_lora_weights_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match="holds no LoRA weights"):
        adapters.write(tmp_path / "other.safetensors", tmp_path / "out.safetensors")
