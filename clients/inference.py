"""How both clients ask a model: check, send, and look again when the model has changed.

Generators of steps, as in `clients.exchange`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from clients import failures
from clients.address import Balancer
from clients.attempts import Deadline, RetryPolicy
from clients.encoding import wire_bytes
from clients.exchange import Exchange, Send, Steps
from clients.replies import Answer, ModelInterface
from clients.request import InferRequest, Operation, Question, build_request, tensor_bytes, version_name
from clients.routing import Route
from clients.shadow import Mirror, Sample, Shadow
from clients.shared_memory import lay_out, output_sizes
from conch.errors import DeadlineExceeded, InvalidInput, ModelNotFound, ModelNotReady, ServerUnavailable


class Inference(Exchange):
    """An exchange that also asks models, and a candidate in their shadow."""

    def __init__(self, urls: str | Sequence[str], *, shadow: Shadow | None = None, **options: Any) -> None:
        super().__init__(urls, **options)
        self.mirror = None if shadow is None else Mirror(shadow)
        self._behind = None if shadow is None else self._apart()

    def _apart(self) -> Inference:
        """A twin whose failures leave no trace here: its own view of the addresses, no retries, no shared memory."""
        twin = copy.copy(self)
        twin.mirror, twin.policy, twin.shared_memory_min_bytes = None, RetryPolicy(0), None
        twin._balancer = Balancer(self.addresses, self._clock)
        twin._interfaces = {}
        return twin

    def reporting(self) -> Mirror:
        """What the shadow has seen. Raises: InvalidInput when there is none."""
        if self.mirror is None:
            raise InvalidInput("the client has no shadow to report of", fix='Client(url, shadow=Shadow("spam@canary"))')
        return self.mirror

    def infer(self, question: Question, timeout_s: float | None, sticky_key: str | None = None) -> Steps[Answer]:
        """Check the values against the model, send them, return its outputs. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        route = self.router.choose(question.model, question.version, sticky_key)
        started_s = self._clock()
        try:
            request, answer = yield from self._answer(_along(question, route), deadline)
        except (ModelNotFound, ModelNotReady, InvalidInput) as error:
            other = self.router.instead(route, error)
            if other is None:
                raise self.router.explain(route, error) from error
            route = other
            request, answer = yield from self._answer(_along(question, route), deadline)
        if self.mirror is not None:
            self.mirror.take(route, request, answer, self._clock() - started_s)
        return answer

    def reflect(self, sample: Sample) -> Steps[None]:
        """Ask the candidate what a sample asked, and note how its answer differs. Raises nothing."""
        assert self.mirror is not None
        assert self._behind is not None
        shadow = self.mirror.shadow
        try:
            route = self.router.named(shadow.candidate, version_name(shadow.version))
            if (route.model, route.version) == (sample.route.model, sample.route.version):
                self.mirror.same()
                return
            started_s = self._clock()
            deadline = self.deadline(shadow.timeout_s)
            _, answer = yield from self._behind._answer(sample.question(route), deadline)
            self.mirror.compared(sample, answer, self._clock() - started_s)
        except Exception as error:
            self.mirror.failed(error)

    def _answer(self, question: Question, deadline: Deadline) -> Steps[tuple[InferRequest, Answer]]:
        """What was sent in the end, and the outputs. Raises: ClientError."""
        request = yield from self._request(question, deadline, decoupled=False)
        key = (question.model, question.version)
        try:
            return request, (yield from self._send(request, deadline))
        except (InvalidInput, ModelNotFound):
            # The model may have been replaced since its signature was read: look again, and send once more if so.
            before = self._interfaces.pop(key, None)
            if (yield from self.interface(*key, deadline)) == before:
                raise
        request = yield from self._request(question, deadline, decoupled=False)
        return request, (yield from self._send(request, deadline))

    def stream_request(self, question: Question, timeout_s: float | None, sticky_key: str | None = None) -> Steps[Send]:
        """Where to send a stream's one request: checked, and never tried again once it is sent. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        grpc = [address for address in self.addresses if address.is_grpc]
        if not grpc:
            raise InvalidInput(
                "a stream needs gRPC",
                where=", ".join(map(str, self.addresses)),
                fix="connect to Triton's gRPC port: grpc://HOST:8001",
            )
        route = self.router.choose(question.model, question.version, sticky_key)
        try:
            request = yield from self._request(_along(question, route), deadline, decoupled=True)
        except (ModelNotFound, ModelNotReady, InvalidInput) as error:
            other = self.router.instead(route, error)
            if other is None:
                raise self.router.explain(route, error) from error
            request = yield from self._request(_along(question, other), deadline, decoupled=True)
        address = self._balancer.choose(grpc)
        operation = Operation("async_stream_infer", inference=request, model=request.model, retry=False)
        return Send(address, operation, deadline.left_s)

    def _request(self, question: Question, deadline: Deadline, *, decoupled: bool) -> Steps[InferRequest]:
        """The request, checked against the signature as it was read last; against a fresh one where it does not fit."""
        key = (question.model, question.version)
        known = key in self._interfaces
        interface = yield from self.interface(*key, deadline)
        try:
            return self._build(question, interface, decoupled=decoupled)
        except InvalidInput:
            if not known:
                raise
        self._interfaces.pop(key, None)
        interface = yield from self.interface(*key, deadline)
        return self._build(question, interface, decoupled=decoupled)

    def _build(self, question: Question, interface: ModelInterface, *, decoupled: bool) -> InferRequest:
        where = f"model {question.model} at {self.addresses[0]}"
        if interface.decoupled and not decoupled:
            raise InvalidInput(
                f"model {question.model} answers in a stream",
                where=where,
                got="infer",
                expected="stream: the model is decoupled, it sends any number of responses",
                fix=f"for part in client.stream({question.model!r}, ...), over grpc://",
            )
        return build_request(question, interface.signature, where=where)

    def _send(self, request: InferRequest, deadline: Deadline) -> Steps[Answer]:
        if self.shared_memory_min_bytes is None:
            return (yield from self._ask(request, deadline))
        request = self._place(request)
        region = request.region
        if region is None:
            return (yield from self._ask(request, deadline))
        try:
            outputs = yield from self._ask(request, deadline)
        except (DeadlineExceeded, ServerUnavailable):
            # Set aside: the server may be running the request still, and would write into another's answer.
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                self._regions.give_back(region)
            raise
        self._regions.give_back(region)
        return outputs

    def _ask(self, request: InferRequest, deadline: Deadline) -> Steps[Answer]:
        operation = Operation("infer", inference=request, model=request.model)
        outputs: Answer = yield from self.of_model(operation, request.version, deadline)
        return outputs

    def _place(self, request: InferRequest) -> InferRequest:
        """The same request with its large tensors copied into shared memory."""
        signature = self._interfaces[request.model, request.version].signature
        batch = request.inputs[0].array.shape[0] if signature.batched and request.inputs else None
        # An input and an output may share a name; the prefixes keep them apart.
        sizes = {f"in {t.name}": tensor_bytes(t) for t in request.inputs}
        sizes |= {f"out {n}": size for n, size in output_sizes(signature, request.outputs, batch).items()}
        layout = lay_out(sizes, self.shared_memory_min_bytes or 0)
        if not layout.total:
            return request
        region = self._regions.take(layout.total)
        places = layout.places(region)
        inputs = {name.removeprefix("in "): p for name, p in places.items() if name.startswith("in ")}
        for tensor in request.inputs:
            if tensor.name in inputs:
                region.write(inputs[tensor.name].offset, wire_bytes(tensor))
        return dataclasses.replace(
            request,
            # A place is given to an output in its request, so all that are wanted must be named.
            outputs=request.outputs or tuple(s.name for s in signature.outputs),
            input_places=inputs,
            output_places={n.removeprefix("out "): p for n, p in places.items() if n.startswith("out ")},
        )

    def stream_failure(self, error: Exception, send: Send) -> Exception:
        """What a stream's failure means; its address is passed over for a moment when nobody answered there."""
        failure = failures.explain(error, send.address, send.operation, send.timeout_s).error
        if isinstance(failure, ServerUnavailable):
            self._balancer.failed(send.address)
        return failure


def _along(question: Question, route: Route) -> Question:
    return dataclasses.replace(question, model=route.model, version=route.version)
