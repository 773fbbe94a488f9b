"""Several Tritons: the one with the fewest requests in flight is asked; one that fails is set aside until it is ready.

Each server is probed all the time: whether it is ready, and which models are. A request that finds nobody does not wait
for the next probe: its server is doubted, asked last, and probed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from clients import failures
from clients.address import parse_address
from clients.replies import ModelState, model_states
from clients.request import InferRequest, Operation
from conch.errors import ClientError, ServerUnavailable
from gateway import settings
from gateway.over_grpc import OverGrpc
from gateway.over_http import OverHttp, Reply

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("conch.gateway")

PROBE_EVERY_S = 0.5
PROBE_TIMEOUT_S = 2.0
# A server under load may be late once; one that refuses the connection is down at once.
LATE_PROBES = 3

State = Literal["up", "doubted", "down"]
Versions = Mapping[str, tuple[str, ...]]


class PooledServer:
    """One Triton: its connections, how many requests are ``in_flight``, its ``state``, and its ready models."""

    def __init__(self, server: settings.Server, headers: Mapping[str, str]) -> None:
        self.address = server
        self.in_flight = 0
        self.last_chosen = 0
        self.state: State = "doubted"
        self.models: Versions = {}
        self.usual_s: dict[str, float] = {}  # what a model's requests took lately
        self.problem = "not asked yet"
        self.http_address = parse_address(server.http)
        self.grpc_address = parse_address(server.grpc)
        self.http = OverHttp(self.http_address, headers)
        self.grpc = OverGrpc(self.grpc_address, headers)
        self.look = asyncio.Event()
        self._late = 0
        self._headers = dict(headers)
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Host and port of its HTTP."""
        return self.address.name

    @property
    def healthy(self) -> bool:
        """Whether it was ready when it was asked last, and nothing has failed since."""
        return self.state == "up"

    def doubt(self, problem: object) -> None:
        """A request found nobody: look at once."""
        if self.state == "up":
            log.warning("server %s is set aside: %s", self.name, problem)
            self.state = "doubted"
        self.look.set()

    async def probe(self) -> None:
        """Ask whether it is ready, and for its ready models; never raises but when cancelled."""
        try:
            models = await self._ready_models()
        except (asyncio.TimeoutError, TimeoutError) as error:
            self._late += 1
            if self._late >= LATE_PROBES or self.state != "up":
                self._down(f"no answer within {PROBE_TIMEOUT_S:g} s", error)
        except (OSError, ClientError, ValueError) as error:
            self._down(str(error).partition("\n")[0], error)
        else:
            self._late = 0
            self.models = models
            if self.state == "down":
                await self.grpc.close()  # the old channel would still wait before it tries again
            if self.state != "up":
                log.info("server %s is ready: %d models", self.name, len(models))
            self.state, self.problem = "up", ""

    def _down(self, problem: str, error: Exception) -> None:
        if self.state != "down":
            log.warning("server %s is down: %s", self.name, problem)
        self.state, self.problem, self.models = "down", problem, {}
        del error

    async def _ready_models(self) -> dict[str, tuple[str, ...]]:
        # Not /v2/health/ready: by default that is no as long as any one model has failed to load. A server that drains
        # refuses the index, too.
        found: dict[str, list[str]] = {}
        for state in await self.index(b'{"ready":true}', PROBE_TIMEOUT_S):
            found.setdefault(state.name, []).append(state.version)
        return {name: tuple(sorted(versions, key=int)) for name, versions in sorted(found.items())}

    async def index(self, body: bytes, timeout_s: float) -> tuple[ModelState, ...]:
        """The repository index. Raises: OSError, TimeoutError, ClientError."""
        reply = await self.http.ask(b"POST", "/v2/repository/index", body, timeout_s=timeout_s)
        if reply.status != 200:
            raise self.refusal(reply, Operation("get_model_repository_index"), timeout_s)
        return model_states(reply.json())

    def refusal(self, reply: Reply, operation: Operation, timeout_s: float) -> ClientError:
        """What an answer that is no 200 means."""
        from tritonclient.utils import InferenceServerException

        error = InferenceServerException(reply.message(), str(reply.status))
        return failures.explain(error, self.http_address, operation, timeout_s).error

    def session(self) -> aiohttp.ClientSession:
        """For what is passed through: bodies that stream."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=self._headers,
                auto_decompress=False,
                # Triton compresses for whoever says that it may: the client says, not aiohttp.
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self._session

    async def close(self) -> None:
        """Close its connections."""
        self.http.close()
        if self._session is not None:
            await self._session.close()
        await self.grpc.close()


class Pool:
    """All of them. ``changed`` is called with the models whose ready versions are others than before."""

    def __init__(self, servers: Sequence[settings.Server], headers: Mapping[str, str]) -> None:
        self.servers = tuple(PooledServer(s, headers) for s in servers)
        self.models: Versions = {}
        self.changed: Callable[[frozenset[str]], Any] = lambda models: None
        self._turn = 0

    @contextlib.asynccontextmanager
    async def server(self, model: str = "", *, beside: Sequence[PooledServer] = ()) -> AsyncIterator[PooledServer]:
        """The server to ask, as `choose` says, held for the block. Raises: ServerUnavailable."""
        chosen = self.choose(model, beside=beside)
        chosen.in_flight += 1
        try:
            yield chosen
        finally:
            chosen.in_flight -= 1

    def choose(self, model: str = "", *, beside: Sequence[PooledServer] = ()) -> PooledServer:
        """Of the healthy servers (those where the model is ready, if any) the one with the fewest requests in flight.

        Those ``beside`` are left out. Raises: ServerUnavailable when there is none.
        """
        able = [s for s in self.servers if s.state == "up" and s not in beside]
        if not able:
            able = [s for s in self.servers if s.state == "doubted" and s not in beside]
        if not able:
            raise self.nobody()
        if len(able) > 1:
            able = [s for s in able if model in s.models] or able
        chosen = min(able, key=_load)
        self._turn += 1
        chosen.last_chosen = self._turn
        return chosen

    def has_others(self, tried: Sequence[PooledServer]) -> bool:
        """Whether a server may answer beside those that were tried."""
        return any(s.state != "down" and s not in tried for s in self.servers)

    def nobody(self) -> ServerUnavailable:
        """What there is to say when no server answers."""
        problems = "; ".join(f"{s.name}: {s.problem or s.state}" for s in self.servers)
        return ServerUnavailable(
            "no model server answers", got=problems, fix="start one (`conch serve`); the gateway finds it by itself"
        )

    def is_ready(self, model: str, version: str = "") -> bool:
        """Whether a model was ready when the servers were asked last."""
        versions = self.models.get(model, ())
        return version in versions if version else bool(versions)

    @property
    def any_ready(self) -> bool:
        """Whether a request has where to go."""
        return any(s.healthy for s in self.servers)

    async def probe(self) -> None:
        """Ask every server once."""
        await asyncio.gather(*(s.probe() for s in self.servers))
        self._merge()

    async def watch(self) -> None:
        """Probe the servers until cancelled."""
        await asyncio.gather(*(self._watch(s) for s in self.servers))

    async def _watch(self, server: PooledServer) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.look.wait(), PROBE_EVERY_S)
            server.look.clear()
            try:
                await server.probe()
                self._merge()
            except Exception:
                log.exception("the probe of %s failed", server.name)  # the watch goes on

    def _merge(self) -> None:
        """All servers' models as one, and word of what has changed."""
        merged: dict[str, set[str]] = {}
        for server in self.servers:
            for name, versions in server.models.items():
                merged.setdefault(name, set()).update(versions)
        models = {name: tuple(sorted(versions, key=int)) for name, versions in merged.items()}
        before, self.models = self.models, models
        if before != models:
            self.changed(frozenset(n for n in before.keys() | models.keys() if before.get(n) != models.get(n)))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(s.close() for s in self.servers))


def _load(server: PooledServer) -> tuple[int, int]:
    return server.in_flight, server.last_chosen


def transport_failure(
    error: Exception, server: PooledServer, model: str, timeout_s: float, method: str = "infer"
) -> ClientError:
    """What a broken exchange with a server means; ``method`` is tritonclient's name for the call."""
    operation = Operation(method, inference=InferRequest(model, "", ()), model=model)
    return failures.explain(error, server.http_address, operation, timeout_s).error
