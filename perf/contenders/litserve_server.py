"""LitServe: a worker a core, its ZeroMQ queue; with batching as CONCH_BENCH's `batching` says.

    python -m perf.contenders.litserve_server PORT

LitServe reads the annotations of decode_request: they must be objects, so no `from __future__ import annotations`.
"""

# Its library is in an environment of its own.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator,attr-defined,no-untyped-call"

import os
import sys
from typing import Any

import litserve
from fastapi import Request

from perf.contenders.handler import SETTINGS, from_json, open_handler


class One(litserve.LitAPI):
    """A request at a time."""

    def setup(self, device: str) -> None:
        """Open the model, in each worker."""
        self.handler = open_handler()

    def decode_request(self, request: Request) -> Any:
        """The payload of a JSON body."""
        return from_json(request)  # by now it is the body, read

    def predict(self, payload: Any) -> Any:
        """Its answer."""
        return self.handler.answer(payload)

    def encode_response(self, output: Any) -> Any:
        """JSON is written by LitServe."""
        return output


class Several(One):
    """Up to a batch of requests at a time."""

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Left as a list: the handler pads."""
        return inputs

    def predict(self, payloads: list[Any]) -> list[Any]:
        """An answer each."""
        return list(self.handler.answer_batch(payloads))

    def unbatch(self, output: list[Any]) -> list[Any]:
        """An answer a request."""
        return output


if __name__ == "__main__":
    batched = SETTINGS["batching"]
    api = Several(max_batch_size=8, batch_timeout=0.002) if batched else One()
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=os.cpu_count() or 1,
        fast_queue=SETTINGS["fast_queue"],
        disable_openapi_url=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=SETTINGS.get("api_servers"),
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
