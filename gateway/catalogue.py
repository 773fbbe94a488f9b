"""What the servers serve: each model's versions, signature and kind; read when asked for, and again when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clients import failures
from clients.replies import ModelState, model_interface
from clients.request import InferRequest, Operation
from conch.errors import ClientError, ConchError, ModelNotFound, ServerUnavailable
from conch.tensor_spec import ModelSignature
from gateway.errors import from_client_error
from gateway.pool import transport_failure
from gateway.security.watched_file import WatchedFile

if TYPE_CHECKING:
    from gateway.pieces import Cache
    from gateway.pool import Pool, PooledServer

Kind = Literal["generate", "embeddings", "rerank", "classify", "table", "image", "tensors"]

# A description is small: one that takes longer comes from a server in trouble.
READ_TIMEOUT_S = 5.0
STATES_GOOD_FOR_S = 0.5


@dataclass(frozen=True)
class EnsembleStep:
    """One step of an ensemble; the maps go from the member's tensor names to the ensemble's."""

    model: str
    version: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True)
class ServedModel:
    """One model as it is served now. ``versions`` are READY, oldest first; ``version`` is the one described.

    ``config`` is Triton's ModelConfig as JSON; ``parameters`` its parameters as text.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    kind: Kind
    signature: ModelSignature
    decoupled: bool = False
    backend: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[EnsembleStep, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """The models of all servers.

    ``ledger`` is the repository's, which every publish writes once its version serves: where answers are cached, the
    next request must know.
    """

    def __init__(self, pool: Pool, cache: Cache, ledger: Path | None = None) -> None:
        self._pool = pool
        self._cache = cache
        self._ledger = WatchedFile(ledger, look_every_s=0.0) if ledger is not None else None
        self._catching_up: asyncio.Task[None] | None = None
        self._known: dict[tuple[str, str], ServedModel] = {}
        self._states: tuple[float, tuple[ModelState, ...]] = (0.0, ())
        self._forgetting: set[asyncio.Task[None]] = set()
        pool.changed = self.forget

    async def model(self, name: str, version: str = "") -> ServedModel:
        """One model by the name that Triton has for it (aliases are the door's); ``version`` empty for the latest.

        Raises: GatewayError 404 with the nearest name, 503 when it is not ready or no server answers.
        """
        try:
            return await self.served(name, version)
        except ClientError as error:
            raise from_client_error(error, param="model") from error

    async def served(self, name: str, version: str = "") -> ServedModel:
        """As `model`. Raises: ClientError."""
        if self._ledger is not None:
            if self._ledger.changed():
                self._catching_up = asyncio.create_task(self._pool.probe())
            if self._catching_up is not None and not self._catching_up.done():
                await asyncio.shield(self._catching_up)
        known = self._known.get((name, version))
        if known is None:
            known = await self._read(name, version)
            if self._pool.is_ready(name, version):  # what the probes have not seen yet, they could not take back
                self._known[name, version] = known
        return known

    async def models(self) -> tuple[ServedModel, ...]:
        """Every model that is ready, by name, members of pipelines among them. Raises: GatewayError."""
        if not self._pool.any_ready:
            raise from_client_error(self._pool.nobody())
        found = await asyncio.gather(*(self.served(name) for name in self._pool.models), return_exceptions=True)
        for failed in found:
            if isinstance(failed, BaseException) and not isinstance(failed, ClientError):
                raise failed
        return tuple(m for m in found if isinstance(m, ServedModel))

    async def states(self) -> tuple[ModelState, ...]:
        """Every version of every model of all servers, with its state and the reason. Raises: GatewayError."""
        asked = [s for s in self._pool.servers if s.healthy]
        indexes = await asyncio.gather(*(s.index(b"{}", READ_TIMEOUT_S) for s in asked), return_exceptions=True)
        found: dict[tuple[str, str], ModelState] = {}
        for index in indexes:
            for state in index if isinstance(index, tuple) else ():
                before = found.get((state.name, state.version))
                if before is None or (state.is_ready and not before.is_ready):
                    found[state.name, state.version] = state
        if not any(isinstance(index, tuple) for index in indexes):
            raise from_client_error(self._pool.nobody())
        return tuple(found[key] for key in sorted(found))

    def forget(self, models: frozenset[str]) -> None:
        """Models have changed: what is known of them is read again, and their cached answers are gone."""
        models |= {m.name for m in self._known.values() if any(step.model in models for step in m.steps)}
        self._known = {key: known for key, known in self._known.items() if key[0] not in models}
        for name in models if self._cache.enabled else ():
            task = asyncio.get_running_loop().create_task(self._cache.forget(name))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def _read(self, name: str, version: str) -> ServedModel:
        """Ask a server that has the model, else any; and the next, where nobody answers. Raises: ClientError."""
        path = f"/v2/models/{_quoted(name)}{f'/versions/{_quoted(version)}' if version else ''}/config"
        operation = Operation("get_model_config", inference=InferRequest(name, version, ()), model=name)
        tried: list[PooledServer] = []
        while True:
            server = self._pool.choose(name, beside=tried)
            tried.append(server)
            try:
                reply = await server.http.ask(b"GET", path, timeout_s=READ_TIMEOUT_S)
                break
            except (OSError, asyncio.TimeoutError) as error:
                failed = transport_failure(error, server, name, READ_TIMEOUT_S)
                if isinstance(failed, ServerUnavailable):
                    server.doubt(failed.what)
                if not self._pool.has_others(tried):
                    raise failed from error
        if reply.status != 200:
            raise await self._refined(server.refusal(reply, operation, READ_TIMEOUT_S), name, version)
        versions = self._pool.models.get(name, ())
        return describe(reply.json(), version or (versions[-1] if versions else ""), versions)

    async def _refined(self, error: ClientError, name: str, version: str) -> ClientError:
        """An error with the nearest name, or the model's state, where the servers tell."""
        if isinstance(error, ServerUnavailable):
            return error
        # Anybody may ask for models that are not there: the servers are not asked about each.
        at_s, states = self._states
        if time.monotonic() - at_s > STATES_GOOD_FOR_S:
            try:
                states = await self.states()
            except ConchError:
                return error
            self._states = time.monotonic(), states
        if not isinstance(error, ModelNotFound) and not any(s.name == name for s in states):
            return error
        return failures.refine_unknown_model(error, name, version, states)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def describe(config: Mapping[str, Any], version: str, versions: tuple[str, ...]) -> ServedModel:
    """A model by its ModelConfig in JSON. Raises: SignatureError, KeyError for what is none."""
    interface = model_interface(config)
    return ServedModel(
        name=config["name"],
        version=version,
        versions=versions,
        kind=kind_of(interface.signature, decoupled=interface.decoupled),
        signature=interface.signature,
        decoupled=interface.decoupled,
        backend=config.get("backend") or config.get("platform", ""),
        parameters={k: v.get("string_value", "") for k, v in config.get("parameters", {}).items()},
        steps=tuple(
            EnsembleStep(
                step["model_name"],
                str(step.get("model_version", -1)),
                step.get("input_map", {}),
                step.get("output_map", {}),
            )
            for step in config.get("ensemble_scheduling", {}).get("step", ())
        ),
        config=config,
    )


def kind_of(signature: ModelSignature, *, decoupled: bool) -> Kind:
    """What a model is for, by its public tensors (ARCHITECTURE.md lists them)."""
    inputs = {t.name for t in signature.inputs}
    required = {t.name for t in signature.inputs if not t.optional}
    outputs = {t.name for t in signature.outputs}
    if "text_input" in inputs and "text_output" in outputs and decoupled:
        return "generate"
    if required == {"text"} and "embedding" in outputs:
        return "embeddings"
    if required == {"text", "text_pair"} and "score" in outputs and "label" not in outputs:
        return "rerank"
    if required == {"image"} and next(t for t in signature.inputs if t.name == "image").datatype == "BYTES":
        return "image"
    if inputs & {"text", "text_pair"} and outputs & {"label", "scores", "entities"}:
        return "classify"
    columns = all(t.dims == (1,) for t in signature.inputs) and len(inputs) > 1
    if signature.batched and signature.inputs and (inputs == {"features"} or columns):
        return "table"
    return "tensors"
