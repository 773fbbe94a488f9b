"""What went wrong below us, as one of conch's client errors: the only place that knows the libraries' exceptions.

Pure: an exception in, a `Failure` out. Types of optional libraries are known by their class names, so that nothing is
imported to name them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clients.address import Address
from clients.replies import ModelState
from clients.request import Operation
from conch.errors import (
    ClientError,
    ContextTooLong,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    RequestTooLarge,
    ServerUnavailable,
    nearest,
)


@dataclass(frozen=True)
class Failure:
    """A client error, and whether the same request may succeed in a moment."""

    error: ClientError
    transient: bool = False


# Triton's HTTP statuses under the names that gRPC has for them.
# Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
_HTTP = {
    "400": "INVALID_ARGUMENT",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "NOT_FOUND",
    "405": "UNIMPLEMENTED",
    "408": "DEADLINE_EXCEEDED",
    "413": "TOO_LARGE",
    "429": "TOO_MANY",
    "499": "CANCELLED",
    "501": "UNIMPLEMENTED",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "DEADLINE_EXCEEDED",
}

# Exceptions of geventhttpclient and aiohttp, by class name: an answer that is no HTTP, and a connection cut short.
_NOT_HTTP = frozenset({"HTTPParseError", "BadStatusLine", "BadHttpMessage", "ClientResponseError"})
_CLOSED = frozenset({"HTTPConnectionClosed", "ClientConnectionError", "ClientPayloadError"})


# How a model that generates text begins its refusals; an exception's come with what Triton says before them.
_REFUSALS = re.compile(r"(?:^|: )(invalid|too long|queue full): (.+)", re.DOTALL)
# vLLM's own words, of several releases.
_TOO_LONG = ("maximum context length", "maximum model length")


def explain(exception: BaseException, address: Address, operation: Operation, timeout_s: float) -> Failure:
    """The failure that an exception stands for."""
    if isinstance(exception, ClientError):
        return Failure(exception)
    names = {kind.__name__ for kind in type(exception).__mro__}
    where = place(operation, address)
    answer = _answer(exception, names)
    if answer is not None:
        return _refused(*answer, address, operation, where, timeout_s)
    if "ValueError" in names and "exceeds maximum protobuf size" in str(exception):
        return Failure(_too_large(operation, where, str(exception)))
    return _broken(exception, names, address, where, timeout_s)


def place(operation: Operation, address: Address) -> str:
    """Where an operation was to happen, for messages."""
    return f"model {operation.model} at {address}" if operation.model else str(address)


def _answer(exception: Any, names: set[str]) -> tuple[str, str] | None:
    """Message and status of an error that came as an answer; None for others."""
    if "InferenceServerException" in names:
        return str(exception.message() or ""), str(exception.status() or "")
    if "RpcError" in names:  # tritonclient.grpc.aio lets gRPC's own errors through in a stream
        return str(exception.details() or ""), str(exception.code())
    return None


def _refused(
    message: str, status: str, address: Address, operation: Operation, where: str, timeout_s: float
) -> Failure:
    """The server answered with an error, or gRPC did in its place."""
    status = status.removeprefix("StatusCode.")
    kind = _HTTP.get(status, status)
    what = _first_line(message)
    if operation.method == "async_stream_infer":
        refusal = _REFUSALS.search(message)
        if refusal is not None or any(words in message for words in _TOO_LONG):
            word, got = refusal.groups() if refusal is not None else ("too long", what)
            return Failure(_refused_text(word, got.strip(), where))
    if "is restricted" in message or kind in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return Failure(
            ClientError(
                "the server does not allow this without the right header",
                where=where,
                got=what,
                fix="pass api_key=... or headers={...}; over gRPC, conch adds the triton-grpc-protocol- prefix itself",
            )
        )
    if "unknown model" in message:
        return Failure(unknown_model(operation.model, where, what))
    if kind == "DEADLINE_EXCEEDED":
        return Failure(deadline_exceeded(where, timeout_s))
    if kind == "TOO_LARGE" or (kind in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT") and "larger than" in message):
        return Failure(_too_large(operation, where, what))
    if kind in ("UNAVAILABLE", "TOO_MANY", "RESOURCE_EXHAUSTED"):
        return _unavailable(what, message, address, where, again=kind == "UNAVAILABLE")
    if kind in ("NOT_FOUND", "UNIMPLEMENTED") and operation.inference is None:
        error = ClientError(
            "the server does not know this call",
            where=where,
            got=what or status,
            expected="a Triton Inference Server",
            fix=f"check the address ({address}) and the model version, which is a whole number above 0",
        )
        return Failure(error)
    if kind in ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION", "ALREADY_EXISTS"):
        return Failure(InvalidInput("the server refuses the request", where=where, got=what))
    if kind == "CANCELLED":
        return Failure(ClientError("the request was cancelled", where=where, got=what))
    fix = "the request reached the model: see the server's log for the whole story"
    return Failure(InferenceFailed("the model failed", where=where, got=message.strip() or status, fix=fix))


def _refused_text(word: str, got: str, where: str) -> ClientError:
    """A model that generates text refuses a request, and says why."""
    if word == "queue full":
        fix = "send fewer requests at once; the limit is the parameter max_queue_size in its config.pbtxt"
        return QueueFull("the model's queue is full", where=where, got=got, fix=fix)
    if word == "too long":
        fix = "shorten the prompt, or lower max_tokens"
        return ContextTooLong("the text is longer than the model's context", where=where, got=got, fix=fix)
    return InvalidInput("the model refuses the request", where=where, got=got)


def _unavailable(what: str, message: str, address: Address, where: str, *, again: bool) -> Failure:
    """Nobody answered, as gRPC tells it, or a server or proxy says that it cannot answer now."""
    lower = message.lower()
    if "certificate" in lower or "ssl" in lower or "handshake" in lower:
        return Failure(_not_trusted(what, address, where))
    if "lookup" in lower or "resolv" in lower:
        return Failure(_no_such_host(what, address, where))
    if "connect" in lower or "socket" in lower or "reset" in lower or "goaway" in lower or not what:
        return Failure(_no_answer(what, address, where), transient=again)
    if "exceeds maximum queue size" in lower:
        fix = "send fewer requests at once, or serve more instances; the limit is max_queue_size in its config.pbtxt"
        return Failure(QueueFull("the model's queue is full", where=where, got=what, fix=fix), transient=again)
    fix = "try again in a moment; if it lasts, the server is overloaded: see `conch status`"
    return Failure(ServerUnavailable("the server cannot answer now", where=where, got=what, fix=fix), transient=again)


def _broken(exception: BaseException, names: set[str], address: Address, where: str, timeout_s: float) -> Failure:
    """The connection could not be made, or broke."""
    got = f"{_first_line(str(exception))}" or type(exception).__name__
    # gevent.Timeout is a BaseException; asyncio's and socket's are TimeoutErrors by these names on Python 3.10.
    if names & {"Timeout", "TimeoutError", "timeout"}:
        return Failure(deadline_exceeded(where, timeout_s))
    cause = getattr(exception, "os_error", None) or exception  # aiohttp wraps the socket's error
    if isinstance(exception, ssl.SSLError) or isinstance(cause, ssl.SSLError) or "ClientSSLError" in names:
        return Failure(_not_trusted(got, address, where))
    if "gaierror" in names or type(cause).__name__ == "gaierror" or "ClientConnectorDNSError" in names:
        return Failure(_no_such_host(got, address, where))
    if names & _NOT_HTTP and not names & _CLOSED:  # geventhttpclient takes a closed connection for a parse error
        error = ServerUnavailable(
            "what answers there does not speak HTTP",
            where=where,
            got=got,
            expected="Triton's HTTP port",
            fix=f"for Triton's gRPC port write grpc://{address.target}",
        )
        return Failure(error)
    if isinstance(exception, OSError) or names & _CLOSED:
        return Failure(_no_answer(got, address, where), transient=True)
    return Failure(ClientError("the request failed", where=where, got=f"{type(exception).__name__}: {got}"))


def deadline_exceeded(where: str, timeout_s: float, last: ClientError | None = None) -> DeadlineExceeded:
    """No answer within the deadline; ``last`` is what the tries before it met."""
    tried = f"; before that: {last.what} ({last.got})" if last is not None else ""
    return DeadlineExceeded(
        f"no answer within {timeout_s:.3g} s",
        where=where,
        got=f"the deadline passed{tried}",
        fix="raise timeout_s, or see with `conch status` what keeps the server busy",
    )


def unknown_model(model: str, where: str, message: str) -> ClientError:
    """What the server's short refusal says by itself; `refine_unknown_model` adds what its index knows."""
    if "no available versions" in message:
        return ModelNotReady(f"model {model} is not ready", where=where, got=message)
    return ModelNotFound(f"the server has no model {model}", where=where, got=message)


def refine_unknown_model(error: ClientError, model: str, version: str, states: Sequence[ModelState]) -> ClientError:
    """The same error with the nearest name, or with the state and the reason, from the repository index."""
    own = [s for s in states if s.name == model]
    ready = sorted({s.name for s in states if s.is_ready})
    if not own:
        close = nearest(model, [s.name for s in states])
        return ModelNotFound(
            f"the server has no model {model}",
            where=error.where,
            got=model,
            expected=f"one of {', '.join(ready)}" if ready else "the server serves no model",
            fix=f"did you mean {close}?" if close else "see `conch status` for what the server serves",
        )
    served = [s.version for s in own if s.is_ready]
    if version and served and version not in served:
        return ModelNotFound(
            f"model {model} has no version {version}",
            where=error.where,
            got=f"version {version}",
            expected=f"version {', '.join(served)}",
            fix="leave the version out to ask the latest",
        )
    state = next((s for s in own if s.version == version), own[-1])
    return ModelNotReady(
        f"model {model} is not ready",
        where=error.where,
        got=f"version {state.version or '?'} is {state.state or 'not loaded'}"
        + (f": {_first_line(state.reason)}" if state.reason else ""),
        expected="READY",
        fix=_not_ready_fix(state),
    )


def _not_ready_fix(state: ModelState) -> str:
    if state.state == "LOADING":
        return "wait: it is being loaded"
    if state.state == "UNAVAILABLE" and state.reason and state.reason != "unloaded":
        return "the reason above kept it from loading: mend the version, or add a new one"
    return "load it: `conch serve` serves every model of the repository, `--control explicit` only those asked for"


def is_lost_region(exception: BaseException) -> bool:
    """Whether the server says that it does not know a shared memory region."""
    return "Unable to find" in str(exception) and "shared memory region" in str(exception)


def no_shared_memory(error: ClientError) -> ClientError:
    """The server cannot open our region."""
    return InvalidInput(
        "the server cannot reach this machine's shared memory",
        where=error.where,
        got=error.got,
        expected="a server on this machine that sees the same /dev/shm",
        fix="leave shared_memory off; for a server in a container, start it with --ipc=host",
    )


def _too_large(operation: Operation, where: str, got: str) -> RequestTooLarge:
    request = operation.inference
    size = f"{request.payload_bytes / 2**20:.1f} MiB of tensors; {got}" if request else got
    return RequestTooLarge(
        "the message is over the size limit",
        where=where,
        got=size,
        fix="send fewer items a request (infer_many), or shared_memory=True on the server's own machine",
    )


def _no_answer(got: str, address: Address, where: str) -> ServerUnavailable:
    fix = "start the server (`conch serve`), or check the address"
    usual = {8000: "http", 8001: "grpc"}.get(address.port)
    if usual and address.is_grpc != (usual == "grpc"):
        fix += f"; port {address.port} is usually Triton's {usual} port"
    return ServerUnavailable(f"no server answers at {address}", where=where, got=got or "no answer", fix=fix)


def _no_such_host(got: str, address: Address, where: str) -> ServerUnavailable:
    return ServerUnavailable(
        f"the host {address.host} is not known", where=where, got=got, fix="check the spelling of the address"
    )


def _not_trusted(got: str, address: Address, where: str) -> ServerUnavailable:
    plain = "http" if address.scheme == "https" else "grpc"
    return ServerUnavailable(
        "no secure connection could be made",
        where=where,
        got=got,
        fix=f"give the authority's certificate with tls=TLS(ca_file=...), or use {plain}:// if the server has no TLS",
    )


def _first_line(message: str) -> str:
    line = message.strip().split("\n", 1)[0]
    return line.removeprefix("[request id: <id_unknown>] ")
