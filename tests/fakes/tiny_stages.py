"""Stages of models whose answers tell the version of their code and of their config, for updates on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from conch.model_config import ModelConfig, ModelConfigMessage, read_config
from conch.repository import PYCACHE_GUARD, Repository, Stage
from conch.tensor_spec import Array
from server.under_load import MixedAnswer

_CODE = """\
import json

import numpy as np
import triton_python_backend_utils as pb_utils

{wrong}
class TritonPythonModel:
    def initialize(self, args):
        self.told = float(json.loads(args["model_config"])["parameters"]["k"]["string_value"])

    def execute(self, requests):
        came = [len(pb_utils.get_input_tensor_by_name(r, "x").as_numpy()) for r in requests]
        own = np.array([[self.told, {k}]], dtype=np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.repeat(own, n, axis=0))]) for n in came]
"""


def stage_telling(stage: Stage, name: str, k: int, *, config_k: int | None = None, broken: bool = False) -> None:
    """Add a model: x FP32 [1] -> y FP32 [2] = the k of its config, the k of its code. ``broken`` does not load."""
    folder = stage.add_model(name, _config(name, k if config_k is None else config_k, backend="python"))
    wrong = 'raise RuntimeError("this model is broken")' if broken else ""
    (folder / "model.py").write_text(_CODE.format(k=float(k), wrong=wrong), encoding="utf-8")
    (folder / PYCACHE_GUARD).touch()


def stage_telling_pipeline(
    stage: Stage, name: str, k: int, *, config_k: int | None = None, broken: bool = False
) -> None:
    """Add an ensemble of one such model: the smallest pipeline, one process a version."""
    member = f"{name}_model"
    stage_telling(stage, member, k, config_k=config_k, broken=broken)
    config = _config(name, k if config_k is None else config_k, platform="ensemble")
    step = config.ensemble_scheduling.step.add(model_name=member, model_version=-1)
    step.input_map["x"], step.output_map["y"] = "x", "y"
    folder = stage.add_model(name, config)
    (folder / "k").write_text(str(k), encoding="utf-8")


def told_version(answer: Mapping[str, Array]) -> str:
    """Which k answered. Raises: MixedAnswer when the code met another version's config."""
    told, own = (float(x) for x in answer["y"].ravel())
    if told != own:
        raise MixedAnswer(f"config of {told:g}, code of {own:g}")
    return str(int(own))


def code_version(answer: Mapping[str, Array]) -> str:
    """Which k answered, where the config does not change with it."""
    return str(int(answer["y"].ravel()[1]))


def stage_written(stage: Stage, write: Callable[[Path, str, int], Path], name: str, k: int) -> None:
    """Add what one of server.tiny_models' functions writes."""
    made = Repository(stage.path.parent / "made")
    write(made.root, name, k)
    for model in sorted(made.model_names(), key=lambda n: (n == name, n)):
        version = stage.add_model(model, read_config(made.model_path(model) / "config.pbtxt"))
        shutil.copytree(made.version_path(model, 1), version, dirs_exist_ok=True)


def _config(name: str, k: int, **kind: str) -> ModelConfigMessage:
    config = ModelConfig(name=name, max_batch_size=8, **kind)
    config.input.add(name="x", data_type="TYPE_FP32", dims=[1])
    config.output.add(name="y", data_type="TYPE_FP32", dims=[2])
    config.parameters["k"].string_value = str(k)
    return config
