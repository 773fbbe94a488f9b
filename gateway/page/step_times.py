"""How long each model has worked, by Triton's own statistics: the gateway cannot see what a pipeline's steps take."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from clients.replies import ModelStatistics, model_statistics
from gateway.pool import Pool, PooledServer

_TIMEOUT_S = 2.0


@dataclass
class StepTime:
    """A model's requests since it was loaded, over all of its versions and servers, and where their time went."""

    requests: int = 0
    queue_ms: float = 0.0
    compute_ms: float = 0.0


async def step_times(pool: Pool) -> dict[str, StepTime]:
    """Every model's, by name. A server that does not answer is left out."""
    healthy = [server for server in pool.servers if server.healthy]
    replies = await asyncio.gather(*(_statistics(server) for server in healthy), return_exceptions=True)
    found: dict[str, StepTime] = {}
    for reply in replies:
        for row in reply if isinstance(reply, tuple) else ():
            time = found.setdefault(row.name, StepTime())
            time.requests += row.success.count
            time.queue_ms += row.queue.total_ns / 1e6
            time.compute_ms += sum(d.total_ns for d in (row.compute_input, row.compute_infer, row.compute_output)) / 1e6
    return found


async def _statistics(server: PooledServer) -> tuple[ModelStatistics, ...]:
    reply = await server.http.ask(b"GET", "/v2/models/stats", timeout_s=_TIMEOUT_S)
    return model_statistics(json.loads(reply.body)) if reply.status == 200 else ()
