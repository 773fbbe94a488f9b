"""Many texts to a model that takes so many at a time: cut, asked side by side, put together in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from conch.tensor_spec import Array
from gateway.caller import Caller
from gateway.catalogue import ServedModel
from gateway.door import Door
from gateway.errors import GatewayError
from gateway.request_info import RequestInfo

# Batches of one request that are with the model at a time.
AT_ONCE = 4


async def ask_in_batches(
    door: Door,
    caller: Caller,
    asked_for: str,
    served: ServedModel,
    inputs: Mapping[str, Sequence[bytes]],
    output: str,
    info: RequestInfo,
) -> Array:
    """One output for texts (by input), an array whose first dimension counts them. Raises: GatewayError."""
    count = len(next(iter(inputs.values())))
    size = served.signature.max_batch_size

    async def ask(start: int, stop: int) -> Array:
        arrays = {name: _strings(texts[start:stop], batched=size > 0) for name, texts in inputs.items()}
        answer = await door.infer(caller, asked_for, arrays, request=info, outputs=(output,))
        return answer[output] if size else answer[output][None]

    step = max(1, size)
    if count <= step:
        whole = await ask(0, count)
    else:
        starts = range(0, count, step)
        parts = await _at_once([lambda start=start: ask(start, start + step) for start in starts])  # type: ignore[misc]
        whole = np.concatenate(parts)
    if len(whole) != count:
        got = f"{len(whole)} in output {output}"
        raise GatewayError("the model answers another number of rows", status=502, got=got, expected=count)
    return whole


def _strings(texts: Sequence[bytes], *, batched: bool) -> Array:
    """BYTES [n, 1], or [1] for a model without batches."""
    array = np.empty((len(texts), 1) if batched else (1,), dtype=object)
    array.reshape(-1)[:] = texts
    return array


async def _at_once(asks: Sequence[Callable[[], Awaitable[Array]]]) -> list[Array]:
    """All answers, in order; when one fails, the others are given up."""
    places = asyncio.Semaphore(AT_ONCE)

    async def hold(ask: Callable[[], Awaitable[Array]]) -> Array:
        async with places:
            return await ask()

    tasks = [asyncio.create_task(hold(ask)) for ask in asks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
