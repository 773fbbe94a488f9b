"""What a running server serves, and how it is doing, from its model statistics.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conch.errors import ConchError, ServerError, ServerUnavailable
from server import http_api
from server.load_failures import tidy

NO_SERVER = "start one with `conch serve`, or name another with --url"


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model since it was loaded.

    ``requests`` are those that succeeded, ``items`` what was in their batches, ``executions`` how often the model ran.
    Averages are None before the first request: ``average_batch`` items an execution; ``queue_ms``, ``compute_ms`` and
    ``latency_ms`` milliseconds a request, the last from arrival to answer within the server.
    """

    name: str
    version: str
    state: str
    reason: str
    requests: int = 0
    failures: int = 0
    items: int = 0
    executions: int = 0
    cache_hits: int = 0
    average_batch: float | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class ServerStatus:
    """A server, its release, whether it calls itself ready, and its models."""

    url: str
    version: str
    ready: bool
    models: tuple[ModelStatus, ...]


def read(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0) -> ServerStatus:
    """Ask a server at http://, https://, grpc:// or grpcs:// how it is.

    Raises: ServerUnavailable when nobody answers, ServerError.
    """
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        answers = _over_http(url.rstrip("/"), headers or {}, timeout_s)
    elif scheme in ("grpc", "grpcs"):
        answers = _over_grpc(url.rstrip("/"), headers or {}, timeout_s)
    else:
        raise ServerError(
            "that is no address of a server",
            got=url,
            expected="http://HOST:PORT, https://, grpc:// or grpcs://",
            fix="by default HTTP is on port 8000 and gRPC on 8001",
        )
    metadata, ready, index, statistics = answers
    return ServerStatus(url, str(metadata.get("version", "")), ready, combine(index, statistics))


def combine(index: list[Mapping[str, Any]], statistics: list[Mapping[str, Any]]) -> tuple[ModelStatus, ...]:
    """Repository index and model statistics, joined by name and version. Pure.

    Numbers may come as text, and zeros be left out: protobuf's JSON does both.
    """
    known = {(row["name"], str(row.get("version", ""))): row for row in statistics}
    models = []
    for row in index:
        key = (row["name"], str(row.get("version", "")))
        state = row.get("state", "") or "not loaded"
        models.append(_model(key, state, tidy(row.get("reason", "")), known.get(key)))
    return tuple(sorted(models, key=lambda m: (m.name, int(m.version) if m.version.isdigit() else 0)))


def _model(key: tuple[str, str], state: str, reason: str, row: Mapping[str, Any] | None) -> ModelStatus:
    if row is None:
        return ModelStatus(*key, state, reason)
    stats = row.get("inference_stats", {})

    def number(name: str, field: str) -> int:
        return int(stats.get(name, {}).get(field, 0))

    requests, executions = number("success", "count"), int(row.get("execution_count", 0))
    items = int(row.get("inference_count", 0))
    parts = ("compute_input", "compute_infer", "compute_output")
    return ModelStatus(
        *key,
        state,
        reason,
        requests=requests,
        failures=number("fail", "count"),
        items=items,
        executions=executions,
        cache_hits=number("cache_hit", "count"),
        average_batch=items / executions if executions else None,
        queue_ms=_ms(number("queue", "ns"), number("queue", "count")),
        compute_ms=_ms(sum(number(p, "ns") for p in parts), number("compute_infer", "count")),
        latency_ms=_ms(number("success", "ns"), requests),
    )


def _ms(total_ns: int, count: int) -> float | None:
    return total_ns / count / 1e6 if count else None


_Answers = tuple[Mapping[str, Any], bool, list[Mapping[str, Any]], list[Mapping[str, Any]]]


def _over_http(url: str, headers: Mapping[str, str], timeout_s: float) -> _Answers:
    metadata = http_api.ask(url, "/v2", headers, timeout_s=timeout_s)
    index = http_api.ask(url, "/v2/repository/index", headers, body={}, timeout_s=timeout_s)
    statistics = http_api.ask(url, "/v2/models/stats", headers, timeout_s=timeout_s)
    ready = http_api.is_ready(url, headers, timeout_s)
    if not isinstance(metadata, dict) or not isinstance(statistics, dict):
        raise ServerError("what answers there is no Triton server", where=url, got=metadata, fix=NO_SERVER)
    return metadata, ready, list(index), list(statistics.get("model_stats", []))


def _over_grpc(url: str, headers: Mapping[str, str], timeout_s: float) -> _Answers:
    import tritonclient.grpc as grpcclient
    from tritonclient.utils import InferenceServerException

    scheme, _, address = url.partition("://")
    common = {"headers": dict(headers), "client_timeout": timeout_s}
    try:
        with grpcclient.InferenceServerClient(address, ssl=scheme == "grpcs") as client:
            metadata = client.get_server_metadata(as_json=True, **common)
            ready = bool(client.is_server_ready(**common))
            index = client.get_model_repository_index(as_json=True, **common)
            statistics = client.get_inference_statistics(as_json=True, **common)
    except InferenceServerException as error:
        raise _explain(url, error.status() or "", error.message() or "") from error
    return metadata, ready, index.get("models", []), statistics.get("model_stats", [])


def _explain(url: str, status: str, message: str) -> ConchError:
    if "restricted" in message:  # Triton refuses those with the status UNAVAILABLE too
        fix = "send its header: --header triton-grpc-protocol-NAME:VALUE"
        return ServerError("this API is restricted on this server", where=url, got=message, fix=fix)
    if "UNAVAILABLE" in status or "DEADLINE" in status:
        return ServerUnavailable("no Triton server answers", where=url, got=message, fix=NO_SERVER)
    return ServerError("the server refused a question about itself", where=url, got=message)
