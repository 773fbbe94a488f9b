"""How both clients ask a model: check, send, and look again when the model has changed.

Generators of steps, as in `clients.exchange`.
"""

from __future__ import annotations

import dataclasses

from clients import failures
from clients.attempts import Deadline
from clients.encoding import wire_bytes
from clients.exchange import Exchange, Send, Steps
from clients.replies import ModelInterface
from clients.request import InferRequest, Operation, Question, build_request, tensor_bytes
from clients.shared_memory import lay_out, output_sizes
from conch.errors import DeadlineExceeded, InvalidInput, ModelNotFound, ServerUnavailable
from conch.tensor_spec import Array


class Inference(Exchange):
    """An exchange that also asks models."""

    def infer(self, question: Question, timeout_s: float | None) -> Steps[dict[str, Array]]:
        """Check the values against the model, send them, return its outputs. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        request = yield from self._request(question, deadline, decoupled=False)
        key = (question.model, question.version)
        try:
            return (yield from self._send(request, deadline))
        except (InvalidInput, ModelNotFound):
            # The model may have been replaced since its signature was read: look again, and send once more if so.
            before = self._interfaces.pop(key, None)
            if (yield from self.interface(*key, deadline)) == before:
                raise
        request = yield from self._request(question, deadline, decoupled=False)
        return (yield from self._send(request, deadline))

    def stream_request(self, question: Question, timeout_s: float | None) -> Steps[Send]:
        """Where to send a stream's one request: checked, and never tried again once it is sent. Raises: ClientError."""
        deadline = self.deadline(timeout_s)
        grpc = [address for address in self.addresses if address.is_grpc]
        if not grpc:
            raise InvalidInput(
                "a stream needs gRPC",
                where=", ".join(map(str, self.addresses)),
                fix="connect to Triton's gRPC port: grpc://HOST:8001",
            )
        request = yield from self._request(question, deadline, decoupled=True)
        address = self._balancer.choose(grpc)
        operation = Operation("async_stream_infer", inference=request, model=question.model, retry=False)
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

    def _send(self, request: InferRequest, deadline: Deadline) -> Steps[dict[str, Array]]:
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

    def _ask(self, request: InferRequest, deadline: Deadline) -> Steps[dict[str, Array]]:
        operation = Operation("infer", inference=request, model=request.model)
        outputs: dict[str, Array] = yield from self.of_model(operation, request.version, deadline)
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
