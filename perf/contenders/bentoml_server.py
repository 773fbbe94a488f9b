"""BentoML: a worker a core, no access log, no metrics; adaptive batching as CONCH_BENCH's `batching` says.

bentoml serve perf.contenders.bentoml_server:Served --port PORT
"""

# Its library is in an environment of its own.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,attr-defined,no-untyped-call"

from __future__ import annotations

import os
from typing import Any

import bentoml

from perf.contenders.handler import SETTINGS, from_json, open_handler

service = bentoml.service(
    name="served",
    workers=os.cpu_count() or 1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)


class One:
    """A request at a time, in the event loop."""

    def __init__(self) -> None:
        self.handler = open_handler()

    @bentoml.api(route="/infer")
    async def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """One payload's answer."""
        answer: dict[str, Any] = self.handler.answer(from_json(payload))
        return answer


class Several:
    """As many requests at a time as BentoML finds best."""

    def __init__(self) -> None:
        self.handler = open_handler()

    @bentoml.api(route="/infer", batchable=True, max_batch_size=32, max_latency_ms=1000)
    async def infer(self, payload: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer a payload."""
        return list(self.handler.answer_batch([from_json(each) for each in payload]))


Served = service(Several if SETTINGS["batching"] else One)
