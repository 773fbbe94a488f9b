"""The samples' names and tensors without their weights: tiny models that answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conch.model_config import read_config, signature_of
from conch.tensor_spec import ModelSignature, data_type
from tests.fakes.parrot import add_parrot

REPOSITORY = Path(__file__).parents[2] / "model_repository"

# Answers zeros, or ham, in the shapes that OUTPUTS says.
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(len(request.inputs()[0].as_numpy())) for request in requests]

    def answer(self, batch):
        tensors = []
        for name, kind, dims in OUTPUTS:
            shape = (batch, *dims)
            array = np.full(shape, b"ham", object) if kind == "object" else np.zeros(shape, kind)
            tensors.append(pb_utils.Tensor(name, array))
        return pb_utils.InferenceResponse(tensors)
"""


def add_stand_ins(triton: Any, *names: str) -> None:
    """Load a stand-in for each of these samples, its tensors read from the sample's own config.pbtxt; and chat."""
    for name in names:
        add_stand_in(triton, name, signature_of(read_config(REPOSITORY / name / "config.pbtxt")))
    add_parrot(triton, "chat")


def add_stand_in(triton: Any, name: str, signature: ModelSignature) -> None:
    """Load a model with these tensors."""
    outputs = [(spec.name, spec.numpy.name, spec.dims) for spec in signature.outputs]
    triton.add(name, _config(signature), {"model.py": MODEL.replace("OUTPUTS", repr(outputs))})


def _config(signature: ModelSignature) -> str:
    tensors = [("input", spec) for spec in signature.inputs] + [("output", spec) for spec in signature.outputs]
    lines = ['backend: "python"', f"max_batch_size: {signature.max_batch_size}"]
    for kind, spec in tensors:
        lines.append(
            f'{kind} {{ name: "{spec.name}" data_type: {data_type(spec.datatype).config} dims: {list(spec.dims)} }}'
        )
    return "\n".join(lines) + "\n"
