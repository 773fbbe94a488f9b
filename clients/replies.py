"""What a server says of itself and its models, typed. Parses the JSON of HTTP and of gRPC alike. Pure.

gRPC's JSON leaves out fields that hold their default, and writes 64-bit integers as strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conch.tensor_spec import Array, ModelSignature, TensorSpec, from_config_type


class Answer(dict[str, Array]):
    """A model's outputs by name, and which ``model`` and ``version`` gave them, in the server's own words."""

    def __init__(self, outputs: Mapping[str, Array], model: str = "", version: str = "") -> None:
        super().__init__(outputs)
        self.model = model
        self.version = version


@dataclass(frozen=True)
class ServerMetadata:
    """The server's name, version and protocol extensions."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """One model as it is served: its READY versions, its signature, whether it answers a request more than once."""

    name: str
    versions: tuple[str, ...]
    platform: str
    signature: ModelSignature
    decoupled: bool


@dataclass(frozen=True)
class ModelState:
    """One version of one model in the repository: READY, LOADING, UNLOADING or UNAVAILABLE, and why.

    ``version`` and ``state`` are empty for a model that was never loaded.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"


@dataclass(frozen=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int
    total_ns: int

    @property
    def mean_ms(self) -> float:
        """The mean in milliseconds; 0 when it never happened."""
        return self.total_ns / self.count / 1e6 if self.count else 0.0


@dataclass(frozen=True)
class ModelStatistics:
    """What one version of a model has done since it was loaded.

    ``inferences`` counts items, ``executions`` runs of the model: their quotient is the average batch. ``batches`` maps
    a batch size to its number of executions. ``last_inference_ms`` is a Unix time in milliseconds, 0 for never.

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
    """

    name: str
    version: str
    inferences: int
    executions: int
    last_inference_ms: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration
    batches: Mapping[int, int]

    @property
    def average_batch(self) -> float:
        """Items a run; 0 before the first."""
        return self.inferences / self.executions if self.executions else 0.0


@dataclass(frozen=True)
class ModelInterface:
    """What a request needs to know of a model: its signature, and whether it is decoupled."""

    signature: ModelSignature
    decoupled: bool


def server_metadata(document: Mapping[str, Any]) -> ServerMetadata:
    """Parse the server's metadata."""
    return ServerMetadata(document["name"], document["version"], tuple(document.get("extensions", ())))


def model_interface(document: Mapping[str, Any]) -> ModelInterface:
    """Parse a model's configuration."""
    config = document.get("config", document)
    signature = ModelSignature(
        inputs=tuple(_spec(t) for t in config.get("input", ())),
        outputs=tuple(_spec(t) for t in config.get("output", ())),
        max_batch_size=int(config.get("max_batch_size", 0)),
    )
    return ModelInterface(signature, bool(config.get("model_transaction_policy", {}).get("decoupled", False)))


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    datatype = from_config_type(tensor["data_type"]).wire
    dims = tuple(int(d) for d in tensor.get("dims", ()))
    return TensorSpec(tensor["name"], datatype, dims, bool(tensor.get("optional", False)))


def model_metadata(document: Mapping[str, Any], interface: ModelInterface) -> ModelMetadata:
    """Parse a model's metadata; signature and kind come from its configuration, which says more."""
    versions = tuple(document.get("versions", ()))
    platform = document.get("platform", "")
    return ModelMetadata(document["name"], versions, platform, interface.signature, interface.decoupled)


def model_states(document: Any) -> tuple[ModelState, ...]:
    """Parse the repository index."""
    rows = document.get("models", ()) if isinstance(document, Mapping) else document
    keys = ("name", "version", "state", "reason")
    return tuple(ModelState(*(row.get(key, "") for key in keys)) for row in rows)


def model_statistics(document: Mapping[str, Any]) -> tuple[ModelStatistics, ...]:
    """Parse the statistics of one model or all."""
    return tuple(_statistics(row) for row in document.get("model_stats", ()))


def _statistics(row: Mapping[str, Any]) -> ModelStatistics:
    times = row.get("inference_stats", {})
    names = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    return ModelStatistics(
        name=row["name"],
        version=row.get("version", ""),
        inferences=int(row.get("inference_count", 0)),
        executions=int(row.get("execution_count", 0)),
        last_inference_ms=int(row.get("last_inference", 0)),
        batches={
            int(batch["batch_size"]): int(batch.get("compute_infer", {}).get("count", 0))
            for batch in row.get("batch_stats", ())
        },
        **{name: _duration(times.get(name, {})) for name in names},
    )


def _duration(value: Mapping[str, Any]) -> Duration:
    return Duration(int(value.get("count", 0)), int(value.get("ns", 0)))
