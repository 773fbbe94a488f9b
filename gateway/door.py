"""The one way to Triton: who may, how many, where to, how long; and what came of it.

Inside, failures are client errors, as the servers tell them; what leaves is a GatewayError.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clients.aliases import Aliases
from clients.generation import Piece
from clients.generation_wire import TextRequest
from clients.replies import Answer
from clients.request import version_name
from clients.routing import Route, Router
from conch.errors import ClientError, ModelNotFound, ModelNotReady, ServerUnavailable
from conch.tensor_spec import Array
from gateway.cache.may_cache import may_cache
from gateway.caller import Caller, require
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError, from_client_error
from gateway.pieces import NoLimiter
from gateway.presence import Presence
from gateway.request_info import RequestInfo
from gateway.sending import send_tensors, send_text

if TYPE_CHECKING:
    from gateway.gateway import Gateway

# A model that cannot answer now may be stood in for; a request that is wrong is wrong everywhere.
_STAND_IN_FOR = (ModelNotFound, ModelNotReady, ServerUnavailable)


class Door:
    """Asks models for callers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        repository = gateway.settings.repository
        self._router = Router(None if repository is None else Aliases(repository))
        self._in_flight: dict[str, int] = {}
        self._charging: set[asyncio.Task[None]] = set()

    async def model(self, caller: Caller, name: str, *, request: RequestInfo, version: str = "") -> ServedModel:
        """The model that a request by this name reaches: permission checked, aliases and fallbacks resolved.

        Raises: GatewayError 403, 404, 503.
        """
        request.record.key_id, request.record.model = caller.key_id, name
        require(caller, name)
        failed: ClientError | None = None
        for other in self._in_turn(name, request):
            try:
                route = self._route(other, version or request.version, request)
                return await self._served(route)
            except _STAND_IN_FOR as error:
                failed = failed or error
            except ClientError as error:
                raise _answered(error) from error
        assert failed is not None
        raise _answered(failed)

    async def infer(
        self,
        caller: Caller,
        model: str,
        inputs: Mapping[str, Array],
        *,
        request: RequestInfo,
        version: str = "",
        outputs: Sequence[str] = (),
    ) -> Answer:
        """Ask a model once: arrays of its types and whole shapes in, its outputs by name out (BYTES as object arrays).

        ``version`` empty: what the header asked for, else the latest, or a canary. ``answer.model`` and
        ``answer.version`` say who answered. Raises: GatewayError.
        """
        await self.admit(caller, model, request)
        failed: ClientError | None = None
        with Presence(request):
            for name in self._in_turn(model, request):
                try:
                    answer = await self._infer(name, version, inputs, tuple(outputs), request)
                except _STAND_IN_FOR as error:
                    failed = failed or error
                except ClientError as error:
                    raise _answered(error) from error
                else:
                    request.record.answered_by, request.record.version = answer.model, answer.version
                    return answer
        assert failed is not None
        raise _answered(failed)

    async def generate(
        self,
        caller: Caller,
        model: str,
        prompt: str | Mapping[str, Any],
        sampling: Mapping[str, Any],
        *,
        request: RequestInfo,
        version: str = "",
        stream: bool = True,
    ) -> AsyncGenerator[Piece, None]:
        """Generate text, piece by piece. ``prompt`` is text, or a chat: {"messages": [...], "tools": [...], ...}.

        ``sampling`` is as `clients.generation.sampling_parameters` makes it; ``stream`` False asks for few pieces,
        where only the whole text is wanted. Leaving the iterator (``aclose``) cancels the work, as does the client's
        going. Raises: GatewayError, at the first piece or later.
        """
        await self.admit(caller, model, request)
        chat = None if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        asked = TextRequest(sampling, prompt if isinstance(prompt, str) else "", chat, stream)
        failed: ClientError | None = None
        last: Piece | None = None
        try:
            with Presence(request) as presence:
                for name in self._in_turn(model, request):
                    try:
                        async with contextlib.aclosing(self._generate(name, version, asked, request)) as pieces:
                            async for piece in pieces:
                                if last is None:
                                    self._note_first(piece, request)
                                last = piece
                                yield piece
                                presence.here()
                        return
                    except ClientError as error:
                        if last is not None or not isinstance(error, _STAND_IN_FOR):
                            raise _answered(error) from error
                        failed = failed or error
        finally:
            if last is not None:
                self._note_tokens(caller, model, last, request)
        assert failed is not None
        raise _answered(failed)

    def in_flight(self, model: str) -> int:
        """How many of a model's places are taken."""
        return self._in_flight.get(model, 0)

    @contextlib.contextmanager
    def place(self, model: str, request: RequestInfo) -> Iterator[None]:
        """One of a model's places in this process, for the block. Raises: GatewayError 429 when all are taken."""
        taken = self._in_flight.get(model, 0)
        limit = self._gateway.settings.queue_limit_of(model)
        if taken >= limit:
            request.record.refused = "queue"
            raise GatewayError(
                f"too many requests wait for model {model}",
                status=429,
                code="queue_full",
                headers={"Retry-After": "1"},
                got=f"{taken} in flight",
            )
        self._in_flight[model] = taken + 1
        self._gateway.metrics.in_flight(model, 1)
        try:
            yield
        finally:
            left = self._in_flight[model] - 1
            if left:
                self._in_flight[model] = left
            else:
                del self._in_flight[model]
            self._gateway.metrics.in_flight(model, -1)

    async def admit(self, caller: Caller, model: str, request: RequestInfo) -> None:
        """Check who asks, and count the request once, however many times it asks. Raises: GatewayError 403, 429."""
        record = request.record
        record.key_id, record.model = caller.key_id, model
        require(caller, model)
        if not record.admitted:
            record.admitted = True
            await self._gateway.limiter.admit(caller, model, request)

    def _in_turn(self, model: str, request: RequestInfo) -> Iterator[str]:
        """The model, and those that stand in for it; those known to be not ready are left out where one is."""
        others = self._gateway.settings.fallbacks.get(model, ()) if request.may_fall_back else ()
        if not others or request.version:
            yield model
            return
        names = (model, *others)
        ready = [name for name in names if self._gateway.pool.is_ready(name.partition("@")[0])]
        yield from ready or names

    def _route(self, name: str, version: str, request: RequestInfo) -> Route:
        """Where a request goes. Raises: ClientError."""
        if "@" in name and self._gateway.settings.repository is None:
            fix = "set `repository`: it holds the aliases"
            raise ModelNotFound(f"there is no model {name}: this gateway knows no aliases", got=name, fix=fix)
        route = self._router.choose(name, version_name(version), request.sticky_key)
        pool = self._gateway.pool
        if route.canary and pool.any_ready and not pool.is_ready(route.model, route.version):
            return self._instead(route, ModelNotReady(f"{route.model} version {route.version} is not ready"))
        return route

    async def _served(self, route: Route) -> ServedModel:
        """The model at a route, or the one to ask in its place. Raises: ClientError."""
        try:
            return await self._gateway.catalogue.served(route.model, route.version)
        except (ModelNotFound, ModelNotReady) as error:
            other = self._instead(route, error)
            return await self._gateway.catalogue.served(other.model, other.version)

    def _instead(self, route: Route, error: ClientError) -> Route:
        """Where to go when nobody answers on a route: an alias may have moved, a canary may be gone.

        Raises: the error, where there is nowhere to go.
        """
        self._gateway.catalogue.forget(frozenset({route.model}))
        other = self._router.instead(route, error)
        if other is None:
            raise self._router.explain(route, error) from error
        return other

    async def _infer(
        self, name: str, version: str, inputs: Mapping[str, Array], outputs: tuple[str, ...], request: RequestInfo
    ) -> Answer:
        """Ask one model, its canary or its alias. Raises: ClientError, GatewayError 429."""
        route = self._route(name, version or request.version, request)
        try:
            return await self._infer_at(route, inputs, outputs, request)
        except (ModelNotFound, ModelNotReady) as error:
            return await self._infer_at(self._instead(route, error), inputs, outputs, request)

    async def _infer_at(
        self, route: Route, inputs: Mapping[str, Array], outputs: tuple[str, ...], request: RequestInfo
    ) -> Answer:
        served = await self._gateway.catalogue.served(route.model, route.version)
        pool, cache = self._gateway.pool, self._gateway.cache
        with self.place(served.name, request):
            if cache.enabled and may_cache(served):
                # The version is named, so that no other's answer is remembered as its own.
                pinned = served.version
                return await cache.infer(
                    served.name,
                    pinned,
                    inputs,
                    outputs,
                    lambda: send_tensors(pool, served, pinned, inputs, outputs, request),
                    request,
                )
            answer = await send_tensors(pool, served, route.version, inputs, outputs, request)
        if answer.version not in served.versions:
            self._gateway.catalogue.forget(frozenset({served.name}))  # a version came since the last look
        return answer

    async def _generate(
        self, name: str, version: str, asked: TextRequest, request: RequestInfo
    ) -> AsyncGenerator[Piece, None]:
        """Ask one model for text. Raises: ClientError, GatewayError 429."""
        route = self._route(name, version or request.version, request)
        begun = False
        while True:
            try:
                served = await self._gateway.catalogue.served(route.model, route.version)
                with self.place(served.name, request):
                    pieces = send_text(self._gateway.pool, served, route.version, asked, request)
                    async with contextlib.aclosing(pieces):
                        async for piece in pieces:
                            begun = True
                            yield piece
                return
            except (ModelNotFound, ModelNotReady) as error:
                if begun:
                    raise
                route = self._instead(route, error)

    def _note_first(self, piece: Piece, request: RequestInfo) -> None:
        record = request.record
        record.answered_by, record.version = piece.model, piece.version
        if record.first_token_at_s is None:
            record.first_token_at_s = time.monotonic()

    def _note_tokens(self, caller: Caller, model: str, last: Piece, request: RequestInfo) -> None:
        """A request may generate several texts: their tokens add up."""
        input_tokens, output_tokens = last.input_tokens or 0, last.output_tokens or 0
        request.record.input_tokens += input_tokens
        request.record.output_tokens += output_tokens
        self.charge_soon(caller, model, input_tokens=input_tokens, output_tokens=output_tokens)

    def charge_soon(self, caller: Caller, model: str, *, input_tokens: int, output_tokens: int = 0) -> None:
        """Count tokens on a key without waiting, also after a request was cancelled. `generate` does it by itself."""
        if isinstance(self._gateway.limiter, NoLimiter):
            return  # a task that does nothing would cost a small model's request a notable share
        counting = self._gateway.limiter.charge(caller, model, input_tokens=input_tokens, output_tokens=output_tokens)
        task = asyncio.get_running_loop().create_task(counting)
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)


def _answered(error: ClientError) -> GatewayError:
    about_model = isinstance(error, ModelNotFound | ModelNotReady)
    return from_client_error(error, param="model" if about_model else None)
