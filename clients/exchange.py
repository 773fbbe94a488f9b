"""What both clients do, but for the I/O: which request, to whom, how often, and what the reply means.

Each method is a generator. It yields `Send` and `Sleep`, is handed replies (or has failures thrown into it), and
returns the result; `Client` and `AsyncClient` only carry the steps out. So this file is the client, and it can be
driven in a test with no server and no clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from clients import failures, replies
from clients.address import MAX_MESSAGE_BYTES, TLS, Address, Balancer, ConnectionOptions, parse_addresses
from clients.attempts import Deadline, RetryPolicy
from clients.replies import ModelInterface, ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from clients.request import InferRequest, Operation, build_request
from conch.errors import ClientError, DeadlineExceeded, InvalidInput, ModelNotFound, ModelNotReady, ServerUnavailable
from conch.tensor_spec import Array

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Carry out an operation at an address; the reply, or what went wrong, comes back."""

    address: Address
    operation: Operation
    timeout_s: float


@dataclass(frozen=True)
class Sleep:
    """Wait before the next step."""

    seconds: float


Step = Send | Sleep
Steps = Generator[Step, Any, T]


class Exchange:
    """The state that a client keeps between requests: the addresses' health and the models' signatures. Thread-safe."""

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        retries: RetryPolicy | int = 5,
        tls: TLS | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.addresses = parse_addresses(urls)
        authorization = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.options = ConnectionOptions({**(headers or {}), **authorization}, tls or TLS(), max_message_bytes)
        self.timeout_s = timeout_s
        self.policy = retries if isinstance(retries, RetryPolicy) else RetryPolicy(retries)
        self._clock = clock
        self._balancer = Balancer(self.addresses, clock)
        self._interfaces: dict[tuple[str, str], ModelInterface] = {}
        Deadline.after(timeout_s, clock)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a call. Raises: InvalidInput."""
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s, self._clock)

    def perform(self, operation: Operation, deadline: Deadline, *, retry: bool = True) -> Steps[Any]:
        """One operation's reply, from whichever address gives it, tried again where that is safe.

        Raises: ClientError.
        """
        tries, last = 0, None
        while True:
            address = self._balancer.choose()
            left_s = deadline.left_s
            if left_s <= 0:
                raise failures.deadline_exceeded(failures.place(operation, address), deadline.timeout_s, last)
            try:
                reply = yield Send(address, operation, left_s)
            except Exception as error:
                failure = failures.explain(error, address, operation, deadline.timeout_s)
                if isinstance(failure.error, ServerUnavailable):
                    self._balancer.failed(address)
                if not (failure.transient and retry and operation.retry):
                    raise failure.error from error
                tries += 1
                if tries > self.policy.retries:
                    raise failure.error from error
                wait_s = self.policy.wait_s(tries)
                # Another address may answer at once; the same one needs the time.
                if tries < len(self.addresses):
                    wait_s = 0.0
                if wait_s >= deadline.left_s:
                    where = failures.place(operation, address)
                    raise failures.deadline_exceeded(where, deadline.timeout_s, failure.error) from error
                last = failure.error
                yield Sleep(wait_s)
            else:
                self._balancer.answered(address)
                return reply

    def infer(
        self,
        model: str,
        inputs: Any,
        tensors: Mapping[str, Any],
        version: int | str | None,
        outputs: Sequence[str] | None,
        timeout_s: float | None,
    ) -> Steps[dict[str, Array]]:
        """Check the values against the model, send them, return its outputs. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        request = yield from self._checked(model, inputs, tensors, version, outputs, deadline, decoupled=False)
        try:
            return (yield from self._send(request, deadline))
        except (InvalidInput, ModelNotFound) as error:
            # The model may have been replaced since its signature was read: look again, and send once more if so.
            before = self._interfaces.pop((model, request.version), None)
            interface = yield from self._interface(model, request.version, deadline)
            if interface == before:
                raise error
        request = yield from self._checked(model, inputs, tensors, version, outputs, deadline, decoupled=False)
        return (yield from self._send(request, deadline))

    def _send(self, request: InferRequest, deadline: Deadline) -> Steps[dict[str, Array]]:
        operation = Operation("infer", inference=request, model=request.model)
        outputs: dict[str, Array] = yield from self._of_model(operation, request.version, deadline)
        return outputs

    def stream_request(
        self,
        model: str,
        inputs: Any,
        tensors: Mapping[str, Any],
        version: int | str | None,
        outputs: Sequence[str] | None,
        timeout_s: float | None,
    ) -> Steps[Send]:
        """Where to send a stream's one request: checked, never tried again once it is sent. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        if not any(address.is_grpc for address in self.addresses):
            raise InvalidInput(
                "a stream needs gRPC",
                where=", ".join(map(str, self.addresses)),
                fix="connect to Triton's gRPC port: Client('grpc://HOST:8001')",
            )
        request = yield from self._checked(model, inputs, tensors, version, outputs, deadline, decoupled=True)
        address = self._balancer.choose()
        while not address.is_grpc:
            address = self._balancer.choose()
        operation = Operation("async_stream_infer", inference=request, model=model, retry=False)
        return Send(address, operation, deadline.left_s)

    def _checked(
        self,
        model: str,
        inputs: Any,
        tensors: Mapping[str, Any],
        version: int | str | None,
        outputs: Sequence[str] | None,
        deadline: Deadline,
        *,
        decoupled: bool,
    ) -> Steps[InferRequest]:
        """The request, checked against the signature as it was read last, or against a fresh one when it fits not."""
        key = (model, "" if version is None else str(version))
        known = key in self._interfaces
        interface = yield from self._interface(*key, deadline)
        where = str(self.addresses[0])
        try:
            self._check_kind(interface, model, where, decoupled=decoupled)
            return build_request(
                model, interface.signature, inputs, tensors, version=version, outputs=outputs, where=where
            )
        except InvalidInput as error:
            if not known:
                raise
            del error
        self._interfaces.pop(key, None)
        interface = yield from self._interface(*key, deadline)
        self._check_kind(interface, model, where, decoupled=decoupled)
        return build_request(model, interface.signature, inputs, tensors, version=version, outputs=outputs, where=where)

    def _check_kind(self, interface: ModelInterface, model: str, where: str, *, decoupled: bool) -> None:
        if interface.decoupled and not decoupled:
            raise InvalidInput(
                f"model {model} answers in a stream",
                where=f"model {model} at {where}",
                got="infer",
                expected="stream: the model is decoupled, it sends any number of responses",
                fix=f"for part in client.stream({model!r}, ...) over grpc://",
            )

    def _interface(self, model: str, version: str, deadline: Deadline) -> Steps[ModelInterface]:
        found = self._interfaces.get((model, version))
        if found is not None:
            return found
        arguments = {"model_name": model, "model_version": version}
        operation = Operation("get_model_config", arguments, model=model)
        document = yield from self._of_model(operation, version, deadline)
        interface = replies.model_interface(document)
        self._interfaces[model, version] = interface
        return interface

    def _of_model(self, operation: Operation, version: str, deadline: Deadline) -> Steps[Any]:
        """Perform an operation on one model; where the server does not know it, say which it may be, or why."""
        try:
            return (yield from self.perform(operation, deadline))
        except (ModelNotFound, ModelNotReady) as error:
            try:
                states = yield from self.models(deadline.left_s)
            except ClientError:
                raise error from None
            raise failures.refine_unknown_model(error, operation.model, version, states) from error

    def models(self, timeout_s: float | None) -> Steps[tuple[ModelState, ...]]:
        """The repository index. Raises: ClientError."""
        operation = Operation("get_model_repository_index")
        return replies.model_states((yield from self.perform(operation, self.deadline(timeout_s))))

    def ready(self, model: str | None, version: int | str | None, timeout_s: float | None) -> Steps[bool]:
        """Whether the server, or a model, answers now; a server that nobody reaches is not ready."""
        operation = Operation("is_server_ready")
        if model is not None:
            arguments = {"model_name": model, "model_version": "" if version is None else str(version)}
            operation = Operation("is_model_ready", arguments, model=model)
        try:
            return bool((yield from self.perform(operation, self.deadline(timeout_s), retry=False)))
        except (ServerUnavailable, DeadlineExceeded, ModelNotFound, ModelNotReady):
            return False

    def server(self, timeout_s: float | None) -> Steps[ServerMetadata]:
        """The server's metadata. Raises: ClientError."""
        operation = Operation("get_server_metadata")
        return replies.server_metadata((yield from self.perform(operation, self.deadline(timeout_s))))

    def metadata(self, model: str, version: int | str | None, timeout_s: float | None) -> Steps[ModelMetadata]:
        """A model's metadata and signature, read anew. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        named = "" if version is None else str(version)
        self._interfaces.pop((model, named), None)
        interface = yield from self._interface(model, named, deadline)
        arguments = {"model_name": model, "model_version": named}
        operation = Operation("get_model_metadata", arguments, model=model)
        return replies.model_metadata((yield from self._of_model(operation, named, deadline)), interface)

    def statistics(
        self, model: str | None, version: int | str | None, timeout_s: float | None
    ) -> Steps[tuple[ModelStatistics, ...]]:
        """What one model or all have done since they were loaded. Raises: ClientError."""
        named = "" if version is None else str(version)
        arguments = {"model_name": model or "", "model_version": named}
        operation = Operation("get_inference_statistics", arguments, model=model or "")
        document = yield from self._of_model(operation, named, self.deadline(timeout_s))
        return replies.model_statistics(document)
