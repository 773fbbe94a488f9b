"""Ray Serve: a replica a core, its throughput settings, no access log; batching as CONCH_BENCH's `batching` says.

python -m perf.contenders.ray_server PORT
"""

# Its library is in an environment of its own.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,attr-defined,no-untyped-call"

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

from perf.contenders.handler import SETTINGS, open_handler

CORES = os.cpu_count() or 1


@serve.deployment(
    num_replicas=CORES,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 0.5},
    logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
)
class Served:
    """One replica."""

    def __init__(self) -> None:
        self.handler = open_handler()

    async def __call__(self, request: Request) -> Any:
        """A payload's answer."""
        payload = await (request.body() if SETTINGS["workload"] == "image" else request.json())
        return await self.several(payload) if SETTINGS["batching"] else self.handler.answer(payload)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)
    async def several(self, payloads: list[Any]) -> list[Any]:
        """An answer a payload."""
        return list(self.handler.answer_batch(payloads))


if __name__ == "__main__":
    ray.init(
        num_cpus=CORES + 2,
        include_dashboard=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        _temp_dir=SETTINGS["scratch"],
    )
    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config=quiet)
    serve.run(Served.bind(), name="served", route_prefix="/infer")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)
    serve.shutdown()
    ray.shutdown()
