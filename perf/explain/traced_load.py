"""A closed-loop load in which each request has an id and its own two stamps, to be found in the traces again.

Stamps are nanoseconds of the machine's monotonic clock, the one that Triton's traces carry: on one machine a client's
stamps and a server's can be laid on one line. Tensors travel in binary, as Triton's clients send them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from clients.encoding import wire_bytes
from clients.request import Tensor
from conch.errors import ConchError, ServerUnavailable

# As long as any id that replaces it, so that the lengths before it stay right.
_PLACEHOLDER = "conch-explain-00000000-00000000"
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Sent:
    """One request: when it was sent and its answer read, and what was wrong ("" for nothing)."""

    request_id: str
    sent_ns: int
    done_ns: int
    failure: str = ""

    @property
    def ms(self) -> float:
        """Its latency."""
        return (self.done_ns - self.sent_ns) / 1e6


def render(url: str, model: str, inputs: Sequence[Tensor], headers: Mapping[str, str]) -> bytes:
    """The bytes of an inference request to an http:// or grpc:// address, with a placeholder for its id."""
    raw = [bytes(wire_bytes(tensor)) for tensor in inputs]
    return _render_grpc(model, inputs, raw) if _is_grpc(url) else _render_http(url, model, inputs, raw, headers)


def drive(
    url: str, requests: Sequence[bytes], concurrency: int, seconds: float, headers: Mapping[str, str]
) -> tuple[Sent, ...]:
    """Send the rendered requests in turn, ``concurrency`` in flight, for ``seconds``; all answers are waited for.

    Ids are of this call alone: a server's trace file still has the requests of earlier ones. ``headers`` are gRPC's
    (HTTP's are in the rendered requests). Raises: ServerUnavailable when the address does not answer.
    """
    return asyncio.run(_drive(url, requests, concurrency, seconds, headers))


def _is_grpc(url: str) -> bool:
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "grpc"):
        raise ConchError("the load goes without TLS", where=url, expected="http://HOST:PORT or grpc://HOST:PORT")
    return scheme == "grpc"


def _render_http(
    url: str, model: str, inputs: Sequence[Tensor], raw: Sequence[bytes], headers: Mapping[str, str]
) -> bytes:
    """JSON, and the tensors in binary behind it, in and out.

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
    """
    described = [
        {
            "name": tensor.name,
            "shape": list(tensor.array.shape),
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(data)},
        }
        for tensor, data in zip(inputs, raw, strict=True)
    ]
    document = {"id": _PLACEHOLDER, "inputs": described, "parameters": {"binary_data_output": True}}
    text = json.dumps(document).encode()
    body = text + b"".join(raw)
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path.rstrip('/')}/v2/models/{model}/infer HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/octet-stream",
        f"Content-Length: {len(body)}",
        f"Inference-Header-Content-Length: {len(text)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _render_grpc(model: str, inputs: Sequence[Tensor], raw: Sequence[bytes]) -> bytes:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model, id=_PLACEHOLDER, raw_input_contents=raw)
    for tensor in inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
    return bytes(request.SerializeToString())


class _Connection(Protocol):
    """One connection with one request under way on it."""

    async def ask(self, message: bytes) -> str:
        """Send a request and read its answer: "" or what was wrong. Raises: OSError, EOFError."""

    async def close(self) -> None:
        """Close it."""


async def _drive(
    url: str, requests: Sequence[bytes], concurrency: int, seconds: float, headers: Mapping[str, str]
) -> tuple[Sent, ...]:
    place, is_grpc = urlsplit(url).netloc, _is_grpc(url)
    prefix = f"{_PLACEHOLDER[:-17]}{uuid.uuid4().hex[:8]}-"
    ids = (f"{prefix}{number % 10**8:08d}" for number in itertools.count())
    in_turn = zip(itertools.cycle(requests), ids, strict=False)
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)

    async def one() -> list[Sent]:
        try:
            connection: _Connection = _Grpc(place, headers) if is_grpc else await _Http.open(place)
            try:
                return await _ask_until(connection, in_turn, end_ns)
            finally:
                await connection.close()
        except (OSError, EOFError) as error:
            fix = "name the server's gRPC address: --grpc-url" if is_grpc else None
            raise ServerUnavailable("the server does not answer the load", where=url, got=error, fix=fix) from error

    done = await asyncio.gather(*(one() for _ in range(concurrency)))
    return tuple(sent for some in done for sent in some)


async def _ask_until(connection: _Connection, in_turn: Iterator[tuple[bytes, str]], end_ns: int) -> list[Sent]:
    done: list[Sent] = []
    placeholder = _PLACEHOLDER.encode()
    for rendered, request_id in in_turn:
        message = rendered.replace(placeholder, request_id.encode(), 1)
        if (sent_ns := time.perf_counter_ns()) >= end_ns:
            break
        failure = await connection.ask(message)
        done.append(Sent(request_id, sent_ns, time.perf_counter_ns(), failure))
    return done


class _Http:
    """A keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, place: str) -> _Http:
        parts = urlsplit(f"//{place}")
        return cls(*await asyncio.open_connection(parts.hostname, parts.port or 80))

    async def ask(self, message: bytes) -> str:
        self._writer.write(message)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        # With the line break: Triton's binary answers have an Inference-Header-Content-Length too.
        length = int(head.partition("\r\ncontent-length:")[2].partition("\r\n")[0])
        body, status = await self._reader.readexactly(length), int(head.split(" ", 2)[1])
        return "" if status == 200 else _reason(status, body)

    async def close(self) -> None:
        self._writer.close()


class _Grpc:
    """A channel of its own, so that calls do not share one connection."""

    def __init__(self, place: str, headers: Mapping[str, str]) -> None:
        import grpc

        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._failed: Any = grpc.aio.AioRpcError
        self._unavailable = grpc.StatusCode.UNAVAILABLE
        self._channel = grpc.aio.insecure_channel(place, options=options)
        self._call = self._channel.unary_unary(_METHOD)  # bytes in, bytes out
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())

    async def ask(self, message: bytes) -> str:
        try:
            await self._call(message, metadata=self._metadata)
        except self._failed as error:
            if error.code() == self._unavailable:
                raise ConnectionError(error.details()) from error
            return f"{error.code().name}: {error.details()}"
        return ""

    async def close(self) -> None:
        await self._channel.close()


def _reason(status: int, body: bytes) -> str:
    try:
        return f"HTTP {status}: {json.loads(body)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body[:200].decode(errors='replace')}"
