"""Load over gRPC: connections of HTTP/2 with one unary call under way each, in the same loop as HTTP's.

A gRPC library in Python takes more of the machine for a call than the server does, and one in another language less
than our HTTP load: either would measure the client. Here both protocols cost about the same. Only what a closed loop
of small unary calls needs is spoken: no compression, no header table, no streams side by side.

Sources: https://www.rfc-editor.org/rfc/rfc9113 (frames), https://www.rfc-editor.org/rfc/rfc7541 (headers),
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from perf.load_loop import LoadResult, run

METHOD = "/inference.GRPCInferenceService/ModelInfer"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
FRAME_BYTES = 16384
WINDOW_BYTES = 65535
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# HEADER_TABLE_SIZE 0: the server then writes every header in full. INITIAL_WINDOW_SIZE: answers never wait for us.
OUR_SETTINGS = struct.pack("!HIHI", 1, 0, 4, 2**31 - 1)


def run_grpc_load(
    host: str, port: int, messages: Sequence[bytes], connections: int, duration_s: float, warmup_s: float = 1.0
) -> LoadResult:
    """Send serialized ModelInferRequests in turn over ``connections`` connections.

    Raises: ServerUnavailable when the address does not answer.
    """
    block = header_block(f"{host}:{port}")
    bodies = [struct.pack("!BI", 0, len(message)) + message for message in messages]
    return run((host, port), lambda number: GrpcExchange(block, bodies, number), connections, duration_s, warmup_s)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame of HTTP/2."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def header_block(authority: str, method: str = METHOD) -> bytes:
    """The headers of a call, as literals that nobody has to remember; names by their place in the static table."""

    def text(value: str) -> bytes:
        data = value.encode()
        assert len(data) < 127  # longer ones need an integer of several bytes
        return bytes([len(data)]) + data

    return (
        b"\x83\x86"  # :method POST, :scheme http
        + (b"\x04" + text(method))  # :path
        + (b"\x01" + text(authority))  # :authority
        + (b"\x0f\x10" + text("application/grpc"))  # content-type
        + (b"\x00" + text("te") + text("trailers"))
    )


class GrpcExchange:
    """One connection, sending the messages in turn from the ``first`` on."""

    def __init__(self, block: bytes, bodies: Sequence[bytes], first: int) -> None:
        self._block = block
        self._bodies = bodies
        self._turn = first
        self._stream = -1
        self._window = WINDOW_BYTES
        self._received = b""
        self._waiting = b""
        self._agreed = False
        window = frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 2**31 - 1 - WINDOW_BYTES))
        self._output = GREETING + frame(SETTINGS, 0, 0, OUR_SETTINGS) + window

    def begin(self) -> None:
        """Queue the next call; it goes out as soon as both sides have settled and the server takes that much."""
        self._waiting = self._bodies[self._turn % len(self._bodies)]
        self._turn += 1
        self._stream += 2
        self._release()

    def output(self) -> bytes:
        """What is to be sent now."""
        data, self._output = self._output, b""
        return data

    def receive(self, data: bytes) -> bool | None:
        """None while the call is under way, then whether its status is OK."""
        received = self._received + data if self._received else data
        at, result = 0, None
        while len(received) >= at + 9:
            size = int.from_bytes(received[at : at + 3], "big")
            if len(received) < at + 9 + size:
                break
            kind, flags = received[at + 3], received[at + 4]
            stream = int.from_bytes(received[at + 5 : at + 9], "big")
            outcome = self._take(kind, flags, stream, received[at + 9 : at + 9 + size])
            result = outcome if outcome is not None else result
            at += 9 + size
        self._received = received[at:]
        self._release()
        return result

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool | None:
        if kind == HEADERS and flags & END_STREAM and stream == self._stream:
            return b"grpc-status\x010" in payload
        if kind == SETTINGS:
            if flags & ACK:
                self._agreed = True
            else:
                self._output += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._output += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY or (kind == RST_STREAM and stream == self._stream):
            return False
        return None

    def _release(self) -> None:
        """Put the waiting call into the output, if it may go."""
        body = self._waiting
        if not body or not self._agreed or len(body) > self._window:
            return
        self._window -= len(body)
        self._waiting = b""
        parts = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)]
        frames = [frame(HEADERS, END_HEADERS, self._stream, self._block)]
        frames += [frame(DATA, END_STREAM if part is parts[-1] else 0, self._stream, part) for part in parts]
        self._output += b"".join(frames)
