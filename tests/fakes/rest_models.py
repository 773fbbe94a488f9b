"""Tiny models for the tests of plain REST: columns, lists of any length, a file, a grid without batches."""

from __future__ import annotations

from typing import Any

# One input a column. `batch` says how many rows the request had that Triton was asked.
PEOPLE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        age = pb_utils.get_input_tensor_by_name(request, "age").as_numpy()
        name = pb_utils.get_input_tensor_by_name(request, "name")
        old = np.array([[b"old" if value >= 65 else b"young"] for value in age.ravel()], dtype=object)
        named = np.array([[b"nobody"]] * len(age), dtype=object) if name is None else name.as_numpy()
        batch = np.full(age.shape, len(age), np.int32)
        arrays = {"label": old, "score": age / 100, "name": named, "batch": batch}
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, a) for n, a in arrays.items()])
"""
PEOPLE_CONFIG = """
    backend: "python"
    max_batch_size: 4
    input { name: "age" data_type: TYPE_FP32 dims: [ 1 ] }
    input { name: "children" data_type: TYPE_INT32 dims: [ 1 ] }
    input { name: "name" data_type: TYPE_STRING dims: [ 1 ] optional: true }
    output { name: "label" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "name" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "batch" data_type: TYPE_INT32 dims: [ 1 ] }
"""

SUM = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        ids = [pb_utils.get_input_tensor_by_name(r, "ids").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("sum", i.sum(axis=1, keepdims=True))]) for i in ids]
"""
SUM_CONFIG = """
    backend: "python"
    max_batch_size: 4
    input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }
    output { name: "sum" data_type: TYPE_INT64 dims: [ 1 ] }
"""

# How long a file is, and how it begins; a file that begins with "no" is refused as an image model refuses.
FILE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(r, "image").as_numpy()) for r in requests]

    def answer(self, files):
        if any(file.startswith(b"no") for file in files.ravel()):
            error = pb_utils.TritonError("input image: no picture, expected JPEG", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        length = np.array([[len(file)] for file in files.ravel()], np.int64)
        begin = np.array([[file[:4]] for file in files.ravel()], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("length", length), pb_utils.Tensor("begin", begin)])
"""
FILE_CONFIG = """
    backend: "python"
    max_batch_size: 4
    input { name: "image" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "length" data_type: TYPE_INT64 dims: [ 1 ] }
    output { name: "begin" data_type: TYPE_STRING dims: [ 1 ] }
"""

# The root of each number: NaN below 0.
ROOT = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        with np.errstate(invalid="ignore"):
            return [pb_utils.InferenceResponse([pb_utils.Tensor("root", np.sqrt(v))]) for v in x]
"""
ROOT_CONFIG = """
    backend: "python"
    max_batch_size: 0
    input { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] }
    output { name: "root" data_type: TYPE_FP32 dims: [ 2, 2 ] }
"""


def add_rest_models(triton: Any) -> None:
    """Load them into a running server."""
    triton.add("rest_people", PEOPLE_CONFIG, {"model.py": PEOPLE})
    triton.add("rest_sum", SUM_CONFIG, {"model.py": SUM})
    triton.add("rest_file", FILE_CONFIG, {"model.py": FILE})
    triton.add("rest_root", ROOT_CONFIG, {"model.py": ROOT})
