"""The application, read top to bottom: what a request meets, in this order."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from conch import __version__
from gateway import errors, v2
from gateway.entry import Entry
from gateway.gateway import Gateway
from gateway.observe import routes as observe
from gateway.openai_api import chat, completions, embeddings, models, rerank
from gateway.page import routes as page
from gateway.rest import document, generate, health, predict
from gateway.security import admin
from gateway.security.audit import AuditContents
from gateway.security.body_limit import BodyLimit
from gateway.security.cors import cors_options
from gateway.settings import Settings
from gateway.short_way import ShortWay

# FastAPI's own, of newer releases, asks three times a request whether anybody listens; gateway/observe is ours.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}


class App(FastAPI):
    """FastAPI with our layers before all of its own: ``front`` is the first that a request meets, `within` the last."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        scope["app"] = self
        await self.front(scope, receive, send)

    async def within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI does with a request."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> App:
    """One process's application. Raises: ConfigError."""
    gateway = Gateway(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with gateway.running():
            yield

    # Its own document would not know the models: gateway/rest/document.py answers /openapi.json.
    app = App(title="conch gateway", version=__version__, lifespan=lifespan, openapi_url=None, telemetry=_NO_TELEMETRY)
    app.state.gateway = gateway
    errors.install(app)

    often = (chat, completions, embeddings, rerank, predict, generate, v2)
    for routes in (health, observe, models, document, *often):
        app.include_router(routes.router)
    if settings.admin:
        app.include_router(admin.router)
    if settings.page:
        app.include_router(page.router)

    # From the last to the first.
    app.front = ShortWay(app.within, routes=[route for routes in often for route in routes.router.routes])
    app.front = BodyLimit(app.front, limit_bytes=settings.body_bytes)
    if settings.audit_contents:
        app.front = AuditContents(app.front)
    app.front = Entry(app.front, gateway=gateway)
    if settings.cors_origins:  # a page must be able to read refusals, too
        app.front = CORSMiddleware(app.front, **cors_options(settings.cors_origins))
    return app
