"""A closed-loop load over HTTP in which each request has an id and its own two stamps, to be found in the traces again.

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
from urllib.parse import urlsplit

import numpy as np

from conch.errors import ConchError, ServerUnavailable
from conch.tensor_spec import Array, from_numpy_type

# As long as any id that replaces it, so that the lengths in the headers stay right.
_PLACEHOLDER = "conch-explain-00000000-00000000"


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


def render(url: str, model: str, inputs: Mapping[str, Array], headers: Mapping[str, str]) -> bytes:
    """The bytes of an inference request, with a placeholder for its id."""
    import tritonclient.http as library

    tensors = []
    for name, array in inputs.items():
        tensor = library.InferInput(name, list(array.shape), from_numpy_type(array.dtype).wire)
        tensor.set_data_from_numpy(array if array.dtype != object else array.astype(np.object_))
        tensors.append(tensor)
    body, json_size = library.InferenceServerClient.generate_request_body(tensors, request_id=_PLACEHOLDER)
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path.rstrip('/')}/v2/models/{model}/infer HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/octet-stream",
        f"Content-Length: {len(body)}",
        *([f"Inference-Header-Content-Length: {json_size}"] if json_size is not None else []),
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(body)


def drive(url: str, requests: Sequence[bytes], concurrency: int, seconds: float) -> tuple[Sent, ...]:
    """Send the rendered requests in turn, ``concurrency`` in flight, for ``seconds``; all answers are waited for.

    Ids are of this call alone: a server's trace file still has the requests of earlier ones.
    Raises: ServerUnavailable when the address does not answer.
    """
    return asyncio.run(_drive(url, requests, concurrency, seconds))


async def _drive(url: str, requests: Sequence[bytes], concurrency: int, seconds: float) -> tuple[Sent, ...]:
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ConchError("the load goes over plain HTTP", where=url, expected="http://HOST:PORT")
    prefix = f"{_PLACEHOLDER[:-17]}{uuid.uuid4().hex[:8]}-"
    ids = (f"{prefix}{number % 10**8:08d}" for number in itertools.count())
    in_turn = zip(itertools.cycle(requests), ids, strict=False)
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    place = (parts.hostname or "", parts.port or 80)
    done = await asyncio.gather(*(_connection(place, url, in_turn, end_ns) for _ in range(concurrency)))
    return tuple(sent for one in done for sent in one)


async def _connection(
    place: tuple[str, int], url: str, in_turn: Iterator[tuple[bytes, str]], end_ns: int
) -> list[Sent]:
    """One keep-alive connection, one request under way on it."""
    done: list[Sent] = []
    placeholder = _PLACEHOLDER.encode()
    try:
        reader, writer = await asyncio.open_connection(*place)
    except OSError as error:
        raise ServerUnavailable("nobody answers at the address", where=url, got=error) from error
    try:
        for rendered, request_id in in_turn:
            message = rendered.replace(placeholder, request_id.encode(), 1)
            if (sent_ns := time.perf_counter_ns()) >= end_ns:
                break
            writer.write(message)
            status, body = await _answer(reader)
            failure = "" if status == 200 else _reason(status, body)
            done.append(Sent(request_id, sent_ns, time.perf_counter_ns(), failure))
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ServerUnavailable("the connection broke under the load", where=url, got=error) from error
    finally:
        writer.close()
    return done


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    # With the line break: Triton's binary answers have an Inference-Header-Content-Length too.
    length = int(head.partition("\r\ncontent-length:")[2].partition("\r\n")[0])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


def _reason(status: int, body: bytes) -> str:
    try:
        return f"HTTP {status}: {json.loads(body)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body[:200].decode(errors='replace')}"
