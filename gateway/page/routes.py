"""The page at `/`, and the JSON that it asks for. Everything it needs comes from here: no other host, no build step."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.caller import Admitted, Caller, gateway_of, require
from gateway.errors import GatewayError
from gateway.observe.metrics import SECONDS, PrometheusMetrics
from gateway.page import contents, figures
from gateway.page.step_times import StepTime, step_times
from gateway.rest.assets import assets_of

router = APIRouter(include_in_schema=False)

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Cache-Control": "no-cache",  # ask each time whether it changed: a new gateway brings a new page
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# A look adds up every worker's counts: many open pages share one.
_LOOK_S = 1.0


@dataclasses.dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def _files() -> dict[str, _File]:
    found = {}
    for path in sorted((Path(__file__).parent / "static").iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.name] = _File(content, _TYPES[path.suffix], etag)
    return found


_FILES = _files()


def _file(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise GatewayError("the page has no such file", status=404)
    headers = {**_HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


@router.get("/")
async def page(request: Request) -> Response:
    """The page; whoever opens it needs a key only for what it shows."""
    return _file(request, "page.html")


@router.get("/page/models")
async def models(request: Request, caller: Admitted) -> dict[str, Any]:
    """Every model that the caller may use, and how many servers answer."""
    gateway = gateway_of(request)
    servers = gateway.pool.servers
    ready = sum(server.healthy for server in servers)
    views: tuple[contents.ModelView, ...] = ()
    if ready:
        served, states = await gateway.catalogue.models(), await gateway.catalogue.states()
        labels = {model.name: assets_of(gateway.settings.repository, model).labels for model in served}
        views = contents.model_views(served, states, caller, labels)
    return {"servers": len(servers), "servers_ready": ready, "models": [dataclasses.asdict(view) for view in views]}


@router.get("/page/models/{name}/example")
async def example(request: Request, caller: Admitted, name: str) -> dict[str, Any]:
    """A real request of the model, a row of plain values: what its version was checked with when it was exported.

    ``row`` is null where there is none.
    """
    require(caller, name)
    gateway = gateway_of(request)
    model = await gateway.catalogue.model(name)
    given = assets_of(gateway.settings.repository, model).example
    rows = {key: value[0] if model.signature.batched else value for key, value in given.items()}
    row = {key: _plain(value, model.signature.input(key).dims) for key, value in rows.items()}
    return {"row": row or None}


def _plain(value: Any, dims: tuple[int, ...]) -> Any:
    """A single value out of its lists."""
    if all(size == 1 for size in dims):
        for _ in dims:
            value = value[0]
    return value


@dataclasses.dataclass(frozen=True)
class _Look:
    at_s: float
    models: dict[str, figures.ModelFigures]
    triton: dict[str, StepTime]


@router.get("/page/live")
async def live(request: Request, caller: Admitted) -> dict[str, Any]:
    """What was counted of each model until now, by the gateway and by Triton; ``at_s`` is on the monotonic clock."""
    gateway, state = gateway_of(request), request.app.state
    look: _Look | None = getattr(state, "page_look", None)
    if look is None or time.monotonic() - look.at_s > _LOOK_S:
        assert isinstance(gateway.metrics, PrometheusMetrics)
        times = await step_times(gateway.pool)
        look = state.page_look = _Look(time.monotonic(), figures.by_model(gateway.metrics.families()), times)
    return {
        "at_s": look.at_s,
        "bounds_s": SECONDS,
        "models": _visible(look.models, caller),
        "triton": _visible(look.triton, caller),
    }


def _visible(by_model: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    return {name: dataclasses.asdict(row) for name, row in by_model.items() if caller.may_use(name)}


@router.get("/page/{name}")
async def file(request: Request, name: str) -> Response:
    """One of the page's files."""
    return _file(request, name)
