import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conch.errors import ExportError
from export.from_huggingface_pooling import MODES, Dense, PoolingPlan, SentenceEncoder, read_plan


def write_modules(folder: Path, *kinds: str, pooling: dict[str, Any] | None = None) -> Path:
    """A folder in sentence-transformers' form, without weights."""
    rows = []
    for index, kind in enumerate(kinds):
        path = "" if kind == "Transformer" else f"{index}_{kind}"
        (folder / path).mkdir(exist_ok=True)
        rows.append({"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"})
        if kind == "Pooling":
            (folder / path / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    (folder / "modules.json").write_text(json.dumps(rows))
    return folder


def test_without_modules_it_is_the_mean_of_length_one(tmp_path: Path) -> None:
    assert read_plan(tmp_path) == PoolingPlan(tmp_path, ("mean",), (), normalize=True)


def test_modules_are_read(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", "Normalize", pooling={"pooling_mode_cls_token": True})
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256, "do_lower_case": true}')
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    plan = read_plan(tmp_path)
    assert (plan.modes, plan.normalize, plan.max_length, plan.lowercase) == (("cls",), True, 256, True)
    assert plan.prompt == "query: "


def test_without_normalize_vectors_keep_their_length(tmp_path: Path) -> None:
    assert not read_plan(write_modules(tmp_path, "Transformer", "Pooling")).normalize


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "cls"]}, ("cls", "mean")),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
    ],
)
def test_pooling_modes_are_read(tmp_path: Path, pooling: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert read_plan(write_modules(tmp_path, "Transformer", "Pooling", pooling=pooling)).modes == modes


@pytest.mark.parametrize("pooling", [{"pooling_mode": "dream"}, {"pooling_mode_mean_tokens": False}])
def test_an_unknown_pooling_is_refused(tmp_path: Path, pooling: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="pooling mode is not known"):
        read_plan(write_modules(tmp_path, "Transformer", "Pooling", pooling=pooling))


@pytest.mark.parametrize("kinds", [("Transformer", "WeightedLayerPooling"), ("Router",)])
def test_an_unknown_module_is_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with pytest.raises(ExportError, match="has a module that conch cannot put") as caught:
        read_plan(write_modules(tmp_path, *kinds))
    assert caught.value.got == kinds[-1]


def test_normalize_comes_last(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Normalize before another"):
        read_plan(write_modules(tmp_path, "Transformer", "Pooling", "Normalize", "Dropout"))


def test_a_broken_list_of_modules_is_told(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"name": "0"}]')
    with pytest.raises(ExportError, match="cannot be read"):
        read_plan(tmp_path)


STATES = torch.tensor([[[1.0, -4.0], [3.0, 8.0], [100.0, 100.0]], [[-2.0, 2.0], [5.0, 5.0], [9.0, 1.0]]])
RIGHT = torch.tensor([[1, 1, 0], [1, 1, 1]])
LEFT = torch.tensor([[0, 1, 1], [1, 1, 1]])


class FixedStates(torch.nn.Module):
    """A token model that always says STATES."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return SimpleNamespace(last_hidden_state=STATES)


def pool(mode: str, mask: Any, *, normalize: bool = False, dense: tuple[Dense, ...] = ()) -> Any:
    plan = PoolingPlan(Path(), (mode,), dense, normalize)
    return SentenceEncoder(FixedStates(), plan)(mask, mask)


@pytest.mark.parametrize(
    ("mode", "due"),
    [
        ("cls", [[1.0, -4.0], [-2.0, 2.0]]),
        ("max", [[3.0, 8.0], [9.0, 5.0]]),
        ("mean", [[2.0, 2.0], [4.0, 8 / 3]]),
        ("mean_sqrt_len_tokens", [[4 / 2**0.5, 4 / 2**0.5], [12 / 3**0.5, 8 / 3**0.5]]),
        ("weightedmean", [[7 / 3, 12 / 3], [35 / 6, 15 / 6]]),
        ("lasttoken", [[3.0, 8.0], [9.0, 1.0]]),
    ],
)
def test_padding_does_not_reach_the_vector(mode: str, due: list[list[float]]) -> None:
    torch.testing.assert_close(pool(mode, RIGHT), torch.tensor(due))


def test_every_mode_is_tested() -> None:
    (mark,) = [m for m in test_padding_does_not_reach_the_vector.pytestmark if m.name == "parametrize"]
    assert {mode for mode, _ in mark.args[1]} == set(MODES)


def test_the_last_token_is_found_behind_left_padding() -> None:
    torch.testing.assert_close(pool("lasttoken", LEFT), STATES[:, 2])


def test_normalized_vectors_have_length_one() -> None:
    torch.testing.assert_close(pool("mean", RIGHT, normalize=True).norm(dim=1), torch.ones(2))


def test_a_dense_layer_follows_the_pooling(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    settings = {"in_features": 2, "out_features": 3, "bias": True, "activation_function": "torch.nn.Tanh"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0.0, 0.5, -1.0])
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "model.safetensors")
    vector = pool("mean", RIGHT, dense=(Dense(tmp_path, "Tanh"),))
    torch.testing.assert_close(vector, torch.tanh(pool("mean", RIGHT) @ weight.T + bias))


def test_a_dense_layer_without_weights_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"in_features": 2, "out_features": 3}')
    with pytest.raises(ExportError, match="dense layer of the sentence model cannot be read"):
        pool("mean", RIGHT, dense=(Dense(tmp_path, "Tanh"),))


def test_a_dense_layer_is_read_from_the_list(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", "Dense", "Normalize")
    (tmp_path / "2_Dense" / "config.json").write_text('{"activation_function": "torch.nn.modules.activation.Tanh"}')
    assert read_plan(tmp_path).dense == (Dense(tmp_path / "2_Dense", "Tanh"),)


def test_an_activation_that_is_none_is_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", "Dense")
    (tmp_path / "2_Dense" / "config.json").write_text('{"activation_function": "os.system"}')
    with pytest.raises(ExportError, match=r"activation is not one of torch\.nn"):
        read_plan(tmp_path)
