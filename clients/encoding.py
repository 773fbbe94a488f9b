"""Checked requests as tritonclient's objects, and its results as arrays. No I/O.

``library`` is the module tritonclient.http or tritonclient.grpc: they name these classes alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clients.replies import Answer
from clients.request import InferRequest, Operation, Tensor
from conch.tensor_spec import Array, data_type


def call_arguments(operation: Operation, library: Any) -> dict[str, Any]:
    """The keyword arguments of the tritonclient method that an operation names."""
    request = operation.inference
    if request is None:
        return dict(operation.arguments)
    return {
        "model_name": request.model,
        "model_version": request.version,
        "inputs": [_encode(tensor, request, library) for tensor in request.inputs],
        "outputs": [_requested(name, request, library) for name in request.outputs] or None,
        **operation.arguments,
    }


def _encode(tensor: Tensor, request: InferRequest, library: Any) -> Any:
    encoded = library.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
    place = request.input_places.get(tensor.name)
    if place is None:
        encoded.set_data_from_numpy(_wire_array(tensor))
    else:
        encoded.set_shared_memory(place.region.name, place.size, place.offset)
    return encoded


def _requested(name: str, request: InferRequest, library: Any) -> Any:
    output = library.InferRequestedOutput(name)
    place = request.output_places.get(name)
    if place is not None:
        output.set_shared_memory(place.region.name, place.size, place.offset)
    return output


def wire_bytes(tensor: Tensor) -> bytes | memoryview:
    """The bytes of a tensor as they lie in shared memory, and in a message."""
    if tensor.datatype == "BYTES":
        from tritonclient.utils import serialize_byte_tensor

        packed = serialize_byte_tensor(tensor.array)
        return bytes(packed.item()) if packed.size else b""
    if tensor.datatype == "BF16":
        # The upper half of a float32, rounded to nearest even as ml_dtypes does.
        bits = tensor.array.view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype("<u2").tobytes()
    return tensor.array.tobytes()


def _wire_array(tensor: Tensor) -> Array:
    """The array that the installed tritonclient takes for a tensor: it differs for BF16 alone."""
    if tensor.datatype != "BF16":
        return tensor.array
    from tritonclient.utils import triton_to_np_dtype

    # tritonclient before 2.60 takes float32 and cuts the mantissa; later ones want ml_dtypes, which they bring along.
    return tensor.array.astype(triton_to_np_dtype("BF16"))


def decode_result(result: Any, request: InferRequest) -> Answer:
    """The outputs by name: BYTES as object arrays of ``bytes``, BF16 as float32."""
    response = result.get_response()
    if isinstance(response, dict):
        outputs, model, version = (response.get(key, "") for key in ("outputs", "model_name", "model_version"))
    else:
        outputs, model, version = response.outputs, response.model_name, response.model_version
    decoded = {}
    for output in outputs:
        fields = output if isinstance(output, dict) else {n: getattr(output, n) for n in ("name", "datatype", "shape")}
        name, place = fields["name"], request.output_places.get(fields["name"])
        if place is None:
            array = result.as_numpy(name)
            decoded[name] = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        else:
            decoded[name] = place.region.read(place.offset, data_type(fields["datatype"]).numpy, fields["shape"])
    return Answer(decoded, model, version)


def answer_reader(operation: Operation) -> Callable[[Any], Answer | None]:
    """A function from a stream's responses (ModelInferResponse) to their outputs; None for one without any."""
    from tritonclient.grpc import InferResult

    request = operation.inference
    assert request is not None

    def read(response: Any) -> Answer | None:
        return decode_result(InferResult(response), request) or None

    return read
