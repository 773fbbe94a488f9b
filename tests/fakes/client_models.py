"""Tiny Python models for the clients' tests, and how they get into a running server."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from conch.errors import ModelLoadError
from conch.tensor_spec import DATA_TYPES

# Says its text again; "sleep 2", "fail" and "raise" do what they say first.
ECHO = """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(r, "text").as_numpy()) for r in requests]

    def answer(self, array):
        word, _, seconds = array.ravel()[0].decode().partition(" ")
        if word == "sleep":
            time.sleep(float(seconds))
        if word == "fail":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("the model refused"))
        if word == "raise":
            raise ValueError("a bug in the model")
        return pb_utils.InferenceResponse([pb_utils.Tensor("text", array)])
"""
ECHO_CONFIG = """
    backend: "python"
    max_batch_size: 8
    input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
"""

# Gives back whatever it is given, of any type.
MIRROR = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.mirror(t) for t in r.inputs()]) for r in requests]

    def mirror(self, tensor):
        if tensor.name() == "BF16":  # numpy has no such type
            return pb_utils.Tensor.from_dlpack("BF16", tensor)
        return pb_utils.Tensor(tensor.name(), tensor.as_numpy())
"""
MIRROR_CONFIG = 'backend: "python"\nmax_batch_size: 0\n' + "".join(
    f'{kind} {{ name: "{t.wire}" data_type: {t.config} dims: [ -1 ] {optional} }}\n'
    for t in DATA_TYPES
    for kind, optional in (("input", "optional: true"), ("output", ""))
)

# Counts up to n, one response each 20 ms, until it is cancelled; a short count stumbles over 13.
COUNT = """
import pathlib
import threading
import time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.run, args=(request, request.get_response_sender())).start()

    def run(self, request, sender):
        n = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0])
        for i in range(n):
            if sender.is_cancelled():
                whole = pathlib.Path("MARK.new")  # renamed once written: nobody reads half a mark
                whole.write_text(str(i))
                whole.rename("MARK")
                break
            if i == 13 and n < 100:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("thirteen")))
                break
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("i", np.array([i], np.int32))]))
            time.sleep(0.02)
        sender.send(flags=FINAL)
"""
COUNT_CONFIG = """
    backend: "python"
    max_batch_size: 0
    input { name: "n" data_type: TYPE_INT32 dims: [ 1 ] }
    output { name: "i" data_type: TYPE_INT32 dims: [ 1 ] }
    model_transaction_policy { decoupled: true }
"""

# A tensor that is worth shared memory, and one whose size nobody knows before.
GRID = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.out(r, "grid"), self.out(r, "note")]) for r in requests]

    def out(self, request, name):
        array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        if name == "grid" and array.ravel()[0] < 0:
            raise ValueError("negative")
        return pb_utils.Tensor(name, array)
"""
GRID_CONFIG = """
    backend: "python"
    max_batch_size: 4
    input { name: "grid" data_type: TYPE_FP32 dims: [ 128, 256 ] }
    input { name: "note" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "grid" data_type: TYPE_FP32 dims: [ 128, 256 ] }
    output { name: "note" data_type: TYPE_STRING dims: [ 1 ] }
"""


def cancelled_mark(triton: Any) -> Path:
    """The file that client_count writes when it is cancelled."""
    return Path(triton.repository.parent, "client_count_cancelled")


def add_client_models(triton: Any) -> None:
    """Load them into the shared server; client_broken does not load, and is meant not to."""
    triton.add("client_echo", ECHO_CONFIG, {"model.py": ECHO})
    triton.add("client_mirror", MIRROR_CONFIG, {"model.py": MIRROR})
    triton.add("client_count", COUNT_CONFIG, {"model.py": COUNT.replace("MARK", str(cancelled_mark(triton)))})
    triton.add("client_grid", GRID_CONFIG, {"model.py": GRID})
    with contextlib.suppress(ModelLoadError):
        triton.add("client_broken", ECHO_CONFIG, {"model.py": "raise ImportError('no such module: weights')"})
