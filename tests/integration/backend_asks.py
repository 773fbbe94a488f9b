"""How the tests of the stand-in backends ask Triton: over gRPC, one by one or all at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

Inputs = Mapping[str, tuple[str, np.ndarray]]


def infer(client: Any, model: str, inputs: Inputs, outputs: Sequence[str] = ()) -> Any:
    """One request; ``inputs`` maps names to (wire type, array)."""
    sent = []
    for name, (wire, array) in inputs.items():
        sent.append(grpcclient.InferInput(name, list(array.shape), wire))
        sent[-1].set_data_from_numpy(array)
    wanted = [grpcclient.InferRequestedOutput(name) for name in outputs] or None
    return client.infer(model, sent, outputs=wanted, client_timeout=60)


def together(client: Any, model: str, requests: Sequence[Inputs]) -> list[Any]:
    """All requests at once; each answer is the result or the error, in order."""

    def ask(inputs: Inputs) -> Any:
        try:
            return infer(client, model, inputs)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def batch_sizes(client: Any, model: str, expected: int) -> set[int]:
    """The sizes of the batches that ran, once one of them is the expected; Triton counts after it has answered."""
    sizes: set[int] = set()
    for _ in range(50):
        (statistics,) = client.get_inference_statistics(model).model_stats
        sizes = {int(batch.batch_size) for batch in statistics.batch_stats}
        if expected in sizes:
            break
        time.sleep(0.1)
    return sizes
