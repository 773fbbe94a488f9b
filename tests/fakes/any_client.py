"""Client and AsyncClient behind one face, so that a test is written once for HTTP and gRPC, sync and async."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from clients import AsyncClient, Client

MODES = ("http", "http-async", "grpc", "grpc-async")


class AnyClient:
    """Calls a client's methods; the asynchronous ones on an event loop of its own, to their end."""

    def __init__(self, mode: str, url: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if mode.endswith("async") else None
        self.client: Any = (AsyncClient if self._loop else Client)(url, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if self._loop is None:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            assert self._loop is not None
            return self._loop.run_until_complete(method(*arguments, **options))

        return call

    def responses(self, method: str, *arguments: Any, first: int | None = None, **options: Any) -> list[Any]:
        """What `stream` or `infer_many` yields: all of it, or the ``first`` so many and then no more."""
        if self._loop is None:
            answers = getattr(self.client, method)(*arguments, **options)
            taken = []
            for answer in answers:
                taken.append(answer)
                if len(taken) == first:
                    break
            answers.close()
            return taken

        async def collect() -> list[Any]:
            answers = getattr(self.client, method)(*arguments, **options)
            taken = []
            async for answer in answers:
                taken.append(answer)
                if len(taken) == first:
                    break
            await answers.aclose()
            return taken

        return list(self._loop.run_until_complete(collect()))

    def __enter__(self) -> AnyClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None:
            self.client.close()
        else:
            self._loop.run_until_complete(self.client.close())
            self._loop.close()


def url_of(server: Any, mode: str) -> str:
    """The server's address for a mode."""
    return str(server.grpc_url if mode.startswith("grpc") else server.http_url)
