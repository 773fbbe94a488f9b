"""gRPC to one Triton: streams, and requests that somebody may want to take back.

Triton gives up the work of a gRPC call that is cancelled, of a request over HTTP it does not. This is
`clients.over_grpc` without what a gateway does elsewhere (retries, aliases, reading signatures), and with headers of
each request's own: a stream is one call, with no thread and no queue between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeVar

from clients.address import Address, ConnectionOptions
from clients.encoding import wire_bytes
from clients.over_grpc import channel_options
from clients.replies import Answer
from clients.request import InferRequest
from gateway.tensor_wire import array_of

T = TypeVar("T")


class OverGrpc:
    """The gRPC channel of one address; it belongs to the event loop that runs when it is first used."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._address = address
        self._options = ConnectionOptions(headers)
        self._metadata = tuple(self._options.metadata().items())
        self._channel: Any = None
        self._stub: Any = None

    async def infer(
        self, request: InferRequest, *, request_id: str, headers: tuple[tuple[str, str], ...] = (), timeout_s: float
    ) -> Answer:
        """Ask once; leaving it cancels the request, also in the model's queue. Raises: grpc.RpcError."""
        message = _message(request, request_id)
        message.parameters["timeout"].int64_param = max(int(timeout_s * 1e6), 1)
        call = self._connected().ModelInfer
        response = await call(message, metadata=(*self._metadata, *headers), timeout=timeout_s)
        raw = response.raw_output_contents
        outputs = {
            o.name: array_of(raw[i], 0, len(raw[i]), o.datatype, o.shape) for i, o in enumerate(response.outputs)
        }
        return Answer(outputs, response.model_name, response.model_version)

    async def stream(
        self,
        request: InferRequest,
        read: Callable[[Any], T | None],
        *,
        request_id: str,
        headers: tuple[tuple[str, str], ...] = (),
        timeout_s: float,
    ) -> AsyncGenerator[T, None]:
        """Send one request, and yield what ``read`` makes of each response (ModelInferResponse) but None.

        Closing the iterator cancels the request. Raises: grpc.RpcError; InferenceServerException for the model's own.
        """
        from grpc.aio import EOF
        from tritonclient.utils import InferenceServerException

        call = self._connected().ModelStreamInfer(metadata=(*self._metadata, *headers), timeout=timeout_s)
        try:
            await call.write(_message(request, request_id))
            await call.done_writing()  # the server ends the stream after the last response
            while (response := await call.read()) is not EOF:
                if response.error_message:
                    raise InferenceServerException(response.error_message)
                value = read(response.infer_response)
                if value is not None:
                    yield value
        finally:
            call.cancel()

    def _connected(self) -> Any:
        from grpc import aio, ssl_channel_credentials
        from tritonclient.grpc import service_pb2_grpc

        if self._channel is None:
            options = channel_options(self._options)
            if self._address.is_secure:
                self._channel = aio.secure_channel(self._address.target, ssl_channel_credentials(), options)
            else:
                self._channel = aio.insecure_channel(self._address.target, options)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    async def close(self) -> None:
        """Close the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def _message(request: InferRequest, request_id: str) -> Any:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(model_name=request.model, model_version=request.version, id=request_id)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_input_contents.append(bytes(wire_bytes(tensor)))
    for name in request.outputs:
        message.outputs.add(name=name)
    return message
