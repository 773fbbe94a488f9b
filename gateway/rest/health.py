"""GET /health: the process runs. GET /ready: it takes requests, and a server is there to answer them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from gateway.caller import gateway_of

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process runs; says nothing of the servers behind it."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Whether to send requests here: 503 while it drains, and while no server is ready."""
    gateway = gateway_of(request)
    servers: list[dict[str, Any]] = [
        {"name": s.name, "ready": s.healthy, "in_flight": s.in_flight} for s in gateway.pool.servers
    ]
    status = "draining" if gateway.draining else "ready" if gateway.pool.any_ready else "no server"
    return JSONResponse({"status": status, "servers": servers}, 200 if status == "ready" else 503)
