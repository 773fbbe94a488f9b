"""The smallest models that show which version answered: for trials of updates, with no framework and no weights.

Single: ``x`` FP32 [1] -> ``y`` FP32 [1] = x + k. Pipeline: three parts, each adds its k to ``trace`` FP32 [3], so that
an answer with parts of two versions shows. Their tensors in between are sized by the version, so that neighbouring
versions' parts do not even fit each other, as after a real change of preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from conch.manifest import Golden, Manifest, digest_files, tensor_to_json
from conch.model_config import CONFIG_FILE
from conch.repository import PYCACHE_GUARD
from conch.tensor_spec import Array
from server.under_load import MixedAnswer, WrongAnswer

# What the models are asked, and the inputs that a check below expects.
ASKED = {"x": [[1.0]]}

_PARTS = ("preprocess", "model", "postprocess")

_SINGLE_CODE = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v + {k})]) for v in x]
"""

_SINGLE_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }}
dynamic_batching {{ }}
"""

# A part: reads READS, writes WRITES with its own k behind what came.
_PART_CODE = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(r, "{reads}").as_numpy()) for r in requests]

    def answer(self, came):
        own = np.full((len(came), 1), {k}, dtype=np.float32)
        parts = [{kept}own, np.zeros((len(came), {padding}), dtype=np.float32)]
        return pb_utils.InferenceResponse([pb_utils.Tensor("{writes}", np.concatenate(parts, axis=1))])
"""

_PART_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 8
input {{ name: "{reads}" data_type: TYPE_FP32 dims: [ {read_width} ] }}
output {{ name: "{writes}" data_type: TYPE_FP32 dims: [ {written_width} ] }}
"""

_ENSEMBLE_CONFIG = """\
name: "{name}"
platform: "ensemble"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
output {{ name: "trace" data_type: TYPE_FP32 dims: [ 3 ] }}
ensemble_scheduling {{
{steps}}}
"""

_STEP = """\
  step {{
    model_name: "{name}"
    model_version: -1
    input_map {{ key: "{reads}" value: "{reads}" }}
    output_map {{ key: "{writes}" value: "{writes}" }}
  }}
"""


def write_single(root: Path, name: str, k: float, version: int = 1) -> Path:
    """Write a model that adds ``k``; returns its version folder."""
    return _write(root, name, version, _SINGLE_CONFIG.format(name=name), _SINGLE_CODE.format(k=float(k)))


def write_pipeline(
    root: Path, name: str, k: int, version: int = 1, *, broken: float = 0.0, padding: int | None = None
) -> Path:
    """Write a pipeline of three parts, each of which leaves ``k``; returns the ensemble's version folder.

    The tensors between the parts are ``padding`` wider than they need be, by default 1 for even and 2 for odd ``k``: no
    two in a row fit each other. ``broken`` is added to what the model in the middle leaves.
    """
    padding = 1 + k % 2 if padding is None else padding
    tensors = (("x", 1), ("prepared", 1 + padding), ("scored", 2 + padding), ("trace", 3))
    parts = [f"{name}_{part}" for part in _PARTS]
    # Of what came, a part keeps what the parts before it have left.
    for index, part in enumerate(parts):
        (reads, read_width), (writes, written_width) = tensors[index], tensors[index + 1]
        last = index == 2
        code = _PART_CODE.format(
            reads=reads,
            writes=writes,
            k=float(k) + (broken if index == 1 else 0.0),
            kept=f"came[:, :{index}], " if index else "",
            padding=0 if last else padding,
        )
        config = _PART_CONFIG.format(
            name=part, reads=reads, read_width=read_width, writes=writes, written_width=written_width
        )
        _write(root, part, version, config, code)
    steps = "".join(
        _STEP.format(name=part, reads=tensors[index][0], writes=tensors[index + 1][0])
        for index, part in enumerate(parts)
    )
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README").write_text(f"version {version} of {name}: all parts leave {k}\n", encoding="utf-8")
    (root / name / CONFIG_FILE).write_text(_ENSEMBLE_CONFIG.format(name=name, steps=steps), encoding="utf-8")
    return folder


def record(root: Path, name: str, k: int, version: int = 1) -> None:
    """Write the manifests of a version of `write_single` or `write_pipeline`, which say that it answers with ``k``."""
    is_pipeline = (root / f"{name}_model").is_dir()
    due = {"trace": np.full((1, 3), k)} if is_pipeline else {"y": np.array(ASKED["x"]) + k}
    golden = Golden(_json({"x": np.array(ASKED["x"])}), _json(due))
    for model in [f"{name}_{part}" for part in _PARTS] * is_pipeline + [name]:
        folder = root / model / str(version)
        Manifest(
            model=model,
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            source={"kind": "tiny", "k": k},
            files=digest_files(folder),
            config=(root / model / CONFIG_FILE).read_text(encoding="utf-8"),
            golden=(golden,) if model == name else (),
        ).write(folder)


def _json(tensors: Mapping[str, Array]) -> dict[str, Any]:
    return {name: tensor_to_json(array.astype(np.float32)) for name, array in tensors.items()}


def single_version(answer: Mapping[str, Array]) -> str:
    """Which k answered, for a request of `ASKED`. Raises: WrongAnswer when none did."""
    k = float(answer["y"].ravel()[0]) - 1.0
    if k != int(k) or k < 0:
        raise WrongAnswer(f"y = {k + 1:g}")
    return str(int(k))


def pipeline_version(answer: Mapping[str, Array]) -> str:
    """Which k all three parts left. Raises: MixedAnswer when they differ, WrongAnswer."""
    trace = [float(x) for x in answer["trace"].ravel()]
    if len(set(trace)) > 1 or len(trace) != 3:
        raise MixedAnswer(f"parts of versions {', '.join(f'{x:g}' for x in trace)}")
    if trace[0] != int(trace[0]):
        raise WrongAnswer(f"trace {trace}")
    return str(int(trace[0]))


def _write(root: Path, name: str, version: int, config: str, code: str) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code, encoding="utf-8")
    (folder / PYCACHE_GUARD).touch()
    (root / name / CONFIG_FILE).write_text(config, encoding="utf-8")
    return folder
