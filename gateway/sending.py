"""A request on its way to one of the servers, and to the next one where nobody answers. Raises client errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping

from clients.generation import Piece
from clients.generation_wire import TextRequest, piece_reader
from clients.replies import Answer
from clients.request import InferRequest, Operation, Question, Tensor, build_request
from conch.errors import ClientError, ModelNotFound, ModelNotReady, QueueFull, ServerUnavailable
from conch.tensor_spec import Array
from gateway.catalogue import ServedModel
from gateway.observe.traces import trace_headers
from gateway.pool import Pool, PooledServer, transport_failure
from gateway.request_info import RequestInfo
from gateway.tensor_wire import decode, encode

# From here on it is worth a costlier call that work can be taken back: over gRPC a call takes twice the CPU.
SLOW_S = 0.25


async def send_tensors(
    pool: Pool,
    served: ServedModel,
    version: str,
    inputs: Mapping[str, Array],
    outputs: tuple[str, ...],
    request: RequestInfo,
) -> Answer:
    """Ask once. A server that does not answer, or has not the model, is passed over for the next.

    Raises: ClientError.
    """
    tried: list[PooledServer] = []
    while True:
        server = pool.choose(served.name, beside=tried)
        tried.append(server)
        usual_s = server.usual_s.get(served.name)
        call = _over_grpc if usual_s is not None and usual_s >= SLOW_S else _over_http
        left_s, began_s = request.left_s, time.monotonic()
        server.in_flight += 1
        try:
            answer = await call(server, served, version, inputs, outputs, request)
        except ClientError as error:
            failed = error
        except Exception as error:
            failed = transport_failure(error, server, served.name, left_s)
            if isinstance(failed, ServerUnavailable) and not isinstance(failed, QueueFull):
                server.doubt(failed.what)
        else:
            return answer
        finally:
            server.in_flight -= 1
            took_s = time.monotonic() - began_s
            server.usual_s[served.name] = took_s if usual_s is None else usual_s + 0.2 * (took_s - usual_s)
        if not _may_go_on(failed, pool, tried):
            raise failed


async def _over_http(
    server: PooledServer,
    served: ServedModel,
    version: str,
    inputs: Mapping[str, Array],
    outputs: tuple[str, ...],
    request: RequestInfo,
) -> Answer:
    """Raises: OSError and TimeoutError where nobody answers, ClientError for a refusal."""
    left_s = request.left_s
    size, body = encode(served.signature, inputs, outputs, request.id, max(int(left_s * 1e6), 1))
    headers = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % size
    for name, value in trace_headers(request).items():
        headers += f"{name}: {value}\r\n".encode()
    path = f"/v2/models/{served.name}{f'/versions/{version}' if version else ''}/infer"
    reply = await server.http.ask(b"POST", path, body, headers=headers, timeout_s=left_s)
    if reply.status != 200:
        operation = Operation("infer", inference=InferRequest(served.name, version, ()), model=served.name)
        raise server.refusal(reply, operation, left_s)
    return decode(reply.body, reply.json_size)


async def _over_grpc(
    server: PooledServer,
    served: ServedModel,
    version: str,
    inputs: Mapping[str, Array],
    outputs: tuple[str, ...],
    request: RequestInfo,
) -> Answer:
    """Raises: grpc.RpcError."""
    tensors = tuple(Tensor(name, served.signature.input(name).datatype, array) for name, array in inputs.items())
    return await server.grpc.infer(
        InferRequest(served.name, version, tensors, outputs),
        request_id=request.id,
        headers=tuple(trace_headers(request).items()),
        timeout_s=request.left_s,
    )


async def send_text(
    pool: Pool, served: ServedModel, version: str, asked: TextRequest, request: RequestInfo
) -> AsyncGenerator[Piece, None]:
    """Ask once over a gRPC stream; the next server is asked only before the first piece. Raises: ClientError."""
    message = build_request(Question(served.name, asked.inputs, version=version), served.signature)
    headers = tuple(trace_headers(request).items())
    tried: list[PooledServer] = []
    while True:
        async with pool.server(served.name, beside=tried) as server:
            tried.append(server)
            begun = False
            left_s = request.left_s
            pieces = server.grpc.stream(
                message, piece_reader(asked), request_id=request.id, headers=headers, timeout_s=left_s
            )
            try:
                async with contextlib.aclosing(pieces):
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except Exception as error:
                failed = transport_failure(error, server, served.name, left_s, "async_stream_infer")
                if isinstance(failed, ServerUnavailable) and not isinstance(failed, QueueFull):
                    server.doubt(failed.what)
                if begun or not _may_go_on(failed, pool, tried):
                    raise failed from error


def _may_go_on(failed: ClientError, pool: Pool, tried: list[PooledServer]) -> bool:
    """Whether another server may answer what this one did not."""
    elsewhere = isinstance(failed, ModelNotFound | ModelNotReady | ServerUnavailable)
    return elsewhere and pool.has_others(tried) and not isinstance(failed, QueueFull)
