"""`Client`: a Triton server, or several, from ordinary code. Its twin for asyncio is `clients.async_client`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from clients.address import MAX_MESSAGE_BYTES, TLS, Address
from clients.attempts import RetryPolicy
from clients.exchange import Exchange, Sleep, Steps
from clients.over_grpc import GrpcTransport
from clients.over_http import HttpTransport
from clients.replies import ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from conch.tensor_spec import Array

T = TypeVar("T")


class Client:
    """Asks models over HTTP or gRPC. One may be shared by any number of threads.

        with Client("grpc://127.0.0.1:8001") as client:
            answer = client.infer("spam", text=["win a prize now", "see you at nine"])
            text(answer["label"])

    ``url`` is ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, or a list of such, which are asked in turn.
    ``api_key`` is sent as ``Authorization: Bearer ...``, ``headers`` as they are. ``timeout_s`` is the deadline of each
    call, retries included; each call may set its own. ``retries`` is the number of tries after the first, for what is
    safe to try again (see `clients.attempts`).
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        retries: RetryPolicy | int = 5,
        tls: TLS | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._exchange = Exchange(
            url,
            api_key=api_key,
            headers=headers,
            timeout_s=timeout_s,
            retries=retries,
            tls=tls,
            max_message_bytes=max_message_bytes,
        )
        self._transports = {a: self._transport(a) for a in self._exchange.addresses}

    def _transport(self, address: Address) -> GrpcTransport | HttpTransport:
        kind = GrpcTransport if address.is_grpc else HttpTransport
        return kind(address, self._exchange.options)

    def infer(
        self,
        model: str,
        inputs: Any = None,
        /,
        *,
        version: int | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        **tensors: Any,
    ) -> dict[str, Array]:
        """Ask a model once: its outputs by name, strings as object arrays of ``bytes`` (`clients.text` decodes them).

        Inputs are keywords, a mapping, a DataFrame, or the bare value of a model with one input. Values may be scalars,
        lists, text, bytes, numpy arrays, pandas Series: see `clients.convert` for the rules. They are checked
        against the model before they are sent. ``outputs`` asks for just these; ``version`` for one version.
        Raises: ClientError, InvalidInput among them.
        """
        return self._run(self._exchange.infer(model, inputs, tensors, version, outputs, timeout_s))

    def ready(
        self, model: str | None = None, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> bool:
        """Whether the server, or one model, answers requests now. An unreachable server is not ready."""
        return self._run(self._exchange.ready(model, version, timeout_s))

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelState, ...]:
        """Every model and version that the server knows, and its state. Raises: ClientError."""
        return self._run(self._exchange.models(timeout_s))

    def server(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """The server's name, version and extensions. Raises: ClientError."""
        return self._run(self._exchange.server(timeout_s))

    def metadata(
        self, model: str, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> ModelMetadata:
        """A model's versions and signature, read anew. Raises: ClientError."""
        return self._run(self._exchange.metadata(model, version, timeout_s))

    def statistics(
        self, model: str | None = None, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What a model's versions, or all models', have done since they were loaded. Raises: ClientError."""
        return self._run(self._exchange.statistics(model, version, timeout_s))

    def close(self) -> None:
        """Close every connection. The client is not to be used afterwards."""
        for transport in self._transports.values():
            transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        """Carry out an exchange's steps."""
        try:
            step = next(steps)
            while True:
                reply: Any
                try:
                    if isinstance(step, Sleep):
                        time.sleep(step.seconds)
                        reply = None
                    else:
                        reply = self._transports[step.address].call(step.operation, step.timeout_s)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
