"""What both clients do, but for the I/O: which request, to whom, how often, and what the reply means.

Each method is a generator. It yields `Send` and `Sleep`, is handed replies (or has failures thrown into it), and
returns the result; `Client` and `AsyncClient` only carry the steps out. So this file is the client, and it can be
driven in a test with no server and no clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from clients import failures, replies
from clients.address import MAX_MESSAGE_BYTES, TLS, Address, Balancer, ConnectionOptions, parse_addresses
from clients.aliases import Aliases, AliasSource
from clients.attempts import Deadline, RetryPolicy
from clients.replies import ModelInterface, ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from clients.request import Operation, version_name
from clients.routing import Router
from clients.shared_memory import DEFAULT_MIN_BYTES, RegionPool
from conch.errors import ClientError, DeadlineExceeded, InvalidInput, ModelNotFound, ModelNotReady, ServerUnavailable

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

# Closing waits no longer than this for a server that does not answer.
_UNREGISTER_S = 2.0
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
        shared_memory: bool | int = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        aliases: AliasSource | Aliases | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.addresses = parse_addresses(urls)
        authorization = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.options = ConnectionOptions({**(headers or {}), **authorization}, tls or TLS(), max_message_bytes)
        self.timeout_s = timeout_s
        self.policy = retries if isinstance(retries, RetryPolicy) else RetryPolicy(retries)
        self._clock = clock
        self._balancer = Balancer(self.addresses, clock)
        self.router = Router(aliases)
        self._interfaces: dict[tuple[str, str], ModelInterface] = {}
        self._regions = RegionPool()
        self.shared_memory_min_bytes = _min_bytes(shared_memory)
        Deadline.after(timeout_s, clock)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a call. Raises: InvalidInput."""
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s, self._clock)

    def perform(self, operation: Operation, deadline: Deadline, *, retry: bool = True) -> Steps[Any]:
        """One operation's reply, from whichever address gives it, tried again where that is safe.

        Raises: ClientError.
        """
        tries, last, registered_again = 0, None, False
        while True:
            address = self._balancer.choose()
            left_s = deadline.left_s
            if left_s <= 0:
                raise failures.deadline_exceeded(failures.place(operation, address), deadline.timeout_s, last)
            try:
                yield from self._register(operation, address, left_s)
                reply = yield Send(address, operation, left_s)
            except Exception as error:
                failure = failures.explain(error, address, operation, deadline.timeout_s)
                if isinstance(failure.error, ServerUnavailable):
                    self._balancer.failed(address)
                if failures.is_lost_region(error) and not registered_again:
                    # A server that was started again: it answers, and knows none of our regions.
                    registered_again = True
                    self._regions.forget_server(address)
                    continue
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

    def _register(self, operation: Operation, address: Address, timeout_s: float) -> Steps[None]:
        """Make the region that a request uses known to the server that is asked."""
        region = operation.inference.region if operation.inference else None
        if region is None or address in region.registered:
            return
        arguments = {"name": region.name, "key": region.key, "byte_size": region.size}
        try:
            yield Send(address, Operation("register_system_shared_memory", arguments), timeout_s)
        except Exception as error:
            failure = failures.explain(error, address, operation, timeout_s)
            if not isinstance(failure.error, InvalidInput):
                raise
            raise failures.no_shared_memory(failure.error) from error
        region.registered.add(address)

    def close(self) -> Steps[None]:
        """Take the shared memory back: from the servers, as far as they answer, and from the system."""
        for region in self._regions.drain():
            for address in sorted(region.registered, key=str):
                with contextlib.suppress(Exception):
                    operation = Operation("unregister_system_shared_memory", {"name": region.name})
                    yield Send(address, operation, _UNREGISTER_S)
            region.unlink()

    def interface(self, model: str, version: str, deadline: Deadline) -> Steps[ModelInterface]:
        """What a request must know of a model: as it was read last, or read now. Raises: ClientError."""
        found = self._interfaces.get((model, version))
        if found is not None:
            return found
        arguments = {"model_name": model, "model_version": version}
        operation = Operation("get_model_config", arguments, model=model)
        document = yield from self.of_model(operation, version, deadline)
        interface = replies.model_interface(document)
        self._interfaces[model, version] = interface
        return interface

    def of_model(self, operation: Operation, version: str, deadline: Deadline) -> Steps[Any]:
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
        try:
            if model is not None:
                route = self.router.named(model, version_name(version))
                arguments = {"model_name": route.model, "model_version": route.version}
                operation = Operation("is_model_ready", arguments, model=route.model)
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
        route = self.router.named(model, version_name(version))
        key = (route.model, route.version)
        self._interfaces.pop(key, None)
        interface = yield from self.interface(*key, deadline)
        arguments = {"model_name": route.model, "model_version": route.version}
        operation = Operation("get_model_metadata", arguments, model=route.model)
        return replies.model_metadata((yield from self.of_model(operation, route.version, deadline)), interface)

    def statistics(
        self, model: str | None, version: int | str | None, timeout_s: float | None
    ) -> Steps[tuple[ModelStatistics, ...]]:
        """What one model or all have done since they were loaded. Raises: ClientError."""
        route = self.router.named(model or "", version_name(version))
        arguments = {"model_name": route.model, "model_version": route.version}
        operation = Operation("get_inference_statistics", arguments, model=route.model)
        document = yield from self.of_model(operation, route.version, self.deadline(timeout_s))
        return replies.model_statistics(document)


def _min_bytes(shared_memory: bool | int) -> int | None:
    """From how many bytes on a tensor goes through shared memory; None for never. Raises: InvalidInput."""
    if shared_memory is False:
        return None
    if shared_memory is True:
        return DEFAULT_MIN_BYTES
    if not isinstance(shared_memory, int) or shared_memory < 0:
        raise InvalidInput("shared_memory is out of range", got=shared_memory, expected="True, False, or bytes from 0")
    return shared_memory
