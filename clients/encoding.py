"""Checked requests as tritonclient's objects, and its results as arrays. No I/O.

``library`` is the module tritonclient.http or tritonclient.grpc: they name these classes alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clients.request import Operation, Tensor
from conch.tensor_spec import Array


def call_arguments(operation: Operation, library: Any) -> dict[str, Any]:
    """The keyword arguments of the tritonclient method that an operation names."""
    request = operation.inference
    if request is None:
        return dict(operation.arguments)
    return {
        "model_name": request.model,
        "model_version": request.version,
        "inputs": [_encode(tensor, library) for tensor in request.inputs],
        "outputs": [library.InferRequestedOutput(name) for name in request.outputs] or None,
        **operation.arguments,
    }


def _encode(tensor: Tensor, library: Any) -> Any:
    encoded = library.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
    encoded.set_data_from_numpy(_wire_array(tensor))
    return encoded


def _wire_array(tensor: Tensor) -> Array:
    """The array that the installed tritonclient takes for a tensor: it differs for BF16 alone."""
    if tensor.datatype != "BF16":
        return tensor.array
    from tritonclient.utils import np_to_triton_dtype

    # tritonclient before 2.60 takes float32 and cuts the mantissa; later ones want ml_dtypes, which they bring along.
    if np_to_triton_dtype(np.dtype(np.float32)) == "BF16" or not _wants_ml_dtypes():
        return tensor.array
    import ml_dtypes

    return tensor.array.astype(ml_dtypes.bfloat16)


def _wants_ml_dtypes() -> bool:
    from tritonclient.utils import triton_to_np_dtype

    return np.dtype(triton_to_np_dtype("BF16")).name == "bfloat16"


def decode_result(result: Any) -> dict[str, Array]:
    """The outputs by name: BYTES as object arrays of ``bytes``, BF16 as float32."""
    response = result.get_response()
    outputs = response.get("outputs", ()) if isinstance(response, dict) else response.outputs
    names = [o["name"] if isinstance(o, dict) else o.name for o in outputs]
    return {name: _plain(result.as_numpy(name)) for name in names}


def _plain(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
