"""gRPC, sync and async: send one operation, return the reply; or hold a stream. All else is decided elsewhere."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import Any, TypeVar

from clients.address import Address, ConnectionOptions
from clients.encoding import call_arguments, decode_result
from clients.request import Operation
from conch.errors import InvalidInput

T = TypeVar("T")

# Methods whose reply is a message, and that can return it as the JSON that HTTP has.
_DESCRIPTIONS = frozenset(
    {
        "get_server_metadata",
        "get_model_metadata",
        "get_model_config",
        "get_model_repository_index",
        "get_inference_statistics",
        "get_system_shared_memory_status",
    }
)


def channel_options(options: ConnectionOptions) -> list[tuple[str, int]]:
    """Channel arguments. Passing any drops all of tritonclient's own, so the message sizes are restated here.

    Keepalive pings are no more frequent than the 300 s that gRPC servers bear. A lost server is looked for again
    after 0.1 to 1 s, and the retries inside gRPC are off: there is one deadline, and one place that retries.

    Source: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
    """
    return [
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", 310_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 0),
    ]


def _connect(library: Any, address: Address, options: ConnectionOptions) -> Any:
    tls = options.tls
    return library.InferenceServerClient(
        address.target,
        ssl=address.is_secure,
        root_certificates=tls.ca_file,
        private_key=tls.key_file,
        certificate_chain=tls.cert_file,
        channel_args=channel_options(options),
    )


def _check(address: Address, options: ConnectionOptions) -> None:
    if address.is_secure and options.tls.insecure:
        raise InvalidInput(
            "gRPC has no way to trust any certificate",
            where=address,
            got="TLS(insecure=True)",
            fix="give the server's certificate with TLS(ca_file=...), or use https://",
        )


def _arguments(operation: Operation, options: ConnectionOptions, timeout_s: float) -> dict[str, Any]:
    from tritonclient import grpc

    arguments = call_arguments(operation, grpc)
    if operation.method in _DESCRIPTIONS:
        arguments["as_json"] = True
    return arguments | {"headers": options.metadata(), "client_timeout": timeout_s}


class GrpcTransport:
    """tritonclient.grpc; one client for all threads, which it allows but for streams."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        _check(address, options)
        self._address = address
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None

    def call(self, operation: Operation, timeout_s: float) -> Any:
        """Send and wait. Raises: whatever the library does; `clients.failures` explains it."""
        from tritonclient import grpc

        with self._lock:
            if self._client is None:
                self._client = _connect(grpc, self._address, self._options)
        arguments = _arguments(operation, self._options, timeout_s)
        reply = getattr(self._client, operation.method)(**arguments)
        return decode_result(reply, operation.inference) if operation.inference is not None else reply

    def stream(
        self, operation: Operation, timeout_s: float, read: Callable[[Any], T | None]
    ) -> Generator[T, None, None]:
        """Send one request, and yield what ``read`` makes of each response (ModelInferResponse) but None.

        Closing the iterator cancels the request.
        """
        import queue

        from tritonclient import grpc

        # A client carries one stream: each stream gets a client of its own. Their channels share one connection.
        client = _connect(grpc, self._address, self._options)
        arrived: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        try:
            client.start_stream(
                lambda result, error: arrived.put((result, error)),
                stream_timeout=timeout_s,
                headers=self._options.metadata(),
            )
            client.async_stream_infer(enable_empty_final_response=True, **call_arguments(operation, grpc))
            while True:
                result, error = arrived.get()
                if error is not None:
                    raise error
                response = result.get_response()
                value = read(response)
                if value is not None:
                    yield value
                if _is_final(response):
                    return
        finally:
            client.stop_stream(cancel_requests=True)
            client.close()

    def release(self) -> None:
        """Nothing is held for a thread."""

    def close(self) -> None:
        """Close the channel."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class AsyncGrpcTransport:
    """tritonclient.grpc.aio; its channel belongs to the event loop of the first call."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        _check(address, options)
        self._address = address
        self._options = options
        self._client: Any = None

    def _connected(self) -> Any:
        from tritonclient.grpc import aio

        if self._client is None:
            self._client = _connect(aio, self._address, self._options)
        return self._client

    async def call(self, operation: Operation, timeout_s: float) -> Any:
        """Send and wait. Raises: whatever the library does; `clients.failures` explains it."""
        arguments = _arguments(operation, self._options, timeout_s)
        reply = await getattr(self._connected(), operation.method)(**arguments)
        return decode_result(reply, operation.inference) if operation.inference is not None else reply

    async def stream(
        self, operation: Operation, timeout_s: float, read: Callable[[Any], T | None]
    ) -> AsyncGenerator[T, None]:
        """Send one request, and yield what ``read`` makes of each response (ModelInferResponse) but None.

        Closing the iterator cancels the request.
        """
        from tritonclient import grpc

        arguments = call_arguments(operation, grpc)

        # The iterator's end half-closes the stream, and the server ends it after the last response.
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield arguments

        replies = self._connected().stream_infer(requests(), stream_timeout=timeout_s, headers=self._options.metadata())
        try:
            async for result, error in replies:
                if error is not None:
                    raise error
                response = result.get_response()
                value = read(response)
                if value is not None:
                    yield value
                if _is_final(response):
                    return
        finally:
            replies.cancel()

    async def close(self) -> None:
        """Close the channel."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _is_final(response: Any) -> bool:
    """Whether a response of a stream is the last."""
    final = response.parameters.get("triton_final_response")
    return bool(final and final.bool_param)
