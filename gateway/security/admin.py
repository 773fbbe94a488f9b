"""Admin endpoints: load, unload, publish and roll back models, for admins' keys alone.

They do what `conch repo` does, with the same checks, and take as long; the answer comes when it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from conch.errors import ClientError, ConchError, RepositoryError, ServerError
from gateway.caller import AdmittedAdmin, Caller, gateway_of
from gateway.errors import GatewayError, from_client_error
from gateway.gateway import Gateway
from gateway.request_info import Info, RequestInfo
from gateway.settings import Settings

router = APIRouter(prefix="/admin/models", tags=["admin"])

T = TypeVar("T")


class Unload(BaseModel):
    """What to let go of."""

    model_config = ConfigDict(extra="forbid")

    dependents: bool = Field(False, description="An ensemble's members, too")


class Publish(BaseModel):
    """What to publish, as `conch repo publish` takes it."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="A path inside the gateway's `publish_from` folder")
    alias: str | None = Field(None, description="Bring it up beside what serves, under this alias; switch nothing")
    version: int | None = Field(None, ge=1)
    p99_ms: float | None = Field(None, gt=0, description="Refuse what is slower")
    dry_run: bool = False
    keep_loaded: bool = False
    new_tensors: bool = Field(False, description="Let inputs and outputs change, though clients may break")


class Rollback(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(None, ge=1, description="The one that served before, unless one is named")


@router.post("/{model}/load")
async def load(model: str, request: Request, caller: AdmittedAdmin, info: Info) -> dict[str, Any]:
    """Load a model, or its new versions, on every server; the old ones serve until the new are ready."""
    gateway = gateway_of(request)
    return await _do(gateway, caller, "load", model, info, lambda: _on_all(gateway, "load", model))


@router.post("/{model}/unload")
async def unload(
    model: str, request: Request, caller: AdmittedAdmin, info: Info, body: Unload | None = None
) -> dict[str, Any]:
    """Let a model go, on every server."""
    gateway = gateway_of(request)
    dependents = body is not None and body.dependents
    return await _do(
        gateway, caller, "unload", model, info, lambda: _on_all(gateway, "unload", model, dependents=dependents)
    )


@router.post("/{model}/publish")
async def publish(model: str, body: Publish, request: Request, caller: AdmittedAdmin, info: Info) -> dict[str, Any]:
    """Try a new version, and let it serve when it is right; whatever fails, serving stays as it was."""
    gateway = gateway_of(request)
    source = _source(gateway.settings, body.source)

    async def run() -> dict[str, Any]:
        return await _publish(gateway, model, source, body, caller)

    return await _do(gateway, caller, "publish", model, info, run)


@router.post("/{model}/rollback")
async def rollback(
    model: str, request: Request, caller: AdmittedAdmin, info: Info, body: Rollback | None = None
) -> dict[str, Any]:
    """Go back to a version that served before."""
    from server.repo_view.live_states import Server
    from server.rollout.going_back import roll_back

    gateway = gateway_of(request)
    root = _repository(gateway.settings)
    version = body.version if body is not None else None

    async def run() -> dict[str, Any]:
        done = await asyncio.to_thread(roll_back, root, model, version, Server(gateway.settings.servers[0].grpc))
        await _others_follow(gateway, done.parts)
        return {"model": model, "version": done.version, "previous": done.previous}

    return await _do(gateway, caller, "rollback", model, info, run)


async def _do(
    gateway: Gateway,
    caller: Caller,
    action: str,
    model: str,
    info: RequestInfo,
    run: Callable[[], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Carry it out, write it down, and say what failed with the status that fits. Raises: GatewayError."""
    info.record.model = model
    try:
        done = await run()
    except ConchError as error:
        gateway.audit.did(caller, action, model, f"failed: {error.what}", info)
        raise _answer(error) from error
    version = f": version {done['version']}" if "version" in done else ""
    gateway.audit.did(caller, action, model, f"done{version}", info)
    await gateway.cache.forget(model)
    return done


async def _publish(gateway: Gateway, model: str, source: Path, body: Publish, caller: Caller) -> dict[str, Any]:
    from server.repo_view.live_states import Server
    from server.rollout.publish import PublishOptions, run
    from server.rollout.published_report import document

    settings = gateway.settings
    options = PublishOptions(
        _repository(settings),
        as_name=model,
        server=Server(settings.servers[0].grpc),
        by=f"gateway:{caller.key_id}",
        **body.model_dump(exclude={"source"}),
    )
    done = await asyncio.to_thread(run, source, options)
    if not body.dry_run:
        await _others_follow(gateway, (done.served_as,))
    return document(done)


async def _on_all(gateway: Gateway, action: str, model: str, **options: bool) -> dict[str, Any]:
    """Load or unload on every server, one after the other: one that refuses stops it before the next."""
    done = []
    for server in gateway.settings.servers:
        await asyncio.to_thread(_control, server.grpc, action, model, options)
        done.append(server.name)
    return {"model": model, "servers": done}


async def _others_follow(gateway: Gateway, models: tuple[str, ...]) -> None:
    """What was switched on the first server is loaded on the others; those that poll see it by themselves."""
    for server in gateway.settings.servers[1:]:
        for model in models:
            await asyncio.to_thread(_control, server.grpc, "follow", model, {})


def _control(url: str, action: str, model: str, options: dict[str, bool]) -> None:
    from server.control import Control

    with Control(url) as control:
        if action == "unload":
            control.unload(model, **options)
        elif action == "load" or control.takes_loads():
            control.load(model)


def _repository(settings: Settings) -> Path:
    if settings.repository is None:
        raise GatewayError(
            "this gateway cannot reach the models' repository",
            status=409,
            code="no_repository",
            fix="start it with --repository",
        )
    return settings.repository


def _source(settings: Settings, text: str) -> Path:
    """The folder to publish from: inside the one that the settings name, links resolved. Raises: GatewayError."""
    if settings.publish_from is None:
        raise GatewayError(
            "this gateway publishes nothing",
            status=409,
            code="no_publish_from",
            fix="name the folder that versions may come from in its settings: publish_from",
        )
    root = settings.publish_from.resolve()
    try:
        source = (root / text).resolve()
        there = source.is_relative_to(root) and source.exists()
    except ValueError:  # no file has such a name: a null, half a character
        there = False
    if not there:
        raise GatewayError(
            "there is no such source", status=404, param="source", got=text, expected="a path inside publish_from"
        )
    return source


def _answer(error: ConchError) -> GatewayError:
    """An admin is told more than a caller: the reason that Triton or the repository gives."""
    from conch.switching.locks import Busy

    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ClientError):
        return from_client_error(error)
    status, code = (409, "busy") if isinstance(error, Busy) else (422, "refused")
    if not isinstance(error, RepositoryError | ServerError):
        status, code = 500, "failed"
    return GatewayError(
        error.what, status=status, code=code, got=error.got, expected=error.expected, fix=error.fix, where=error.where
    )
