"""Answers in Redis, shared by gateways and workers. Its size is Redis's own setting: maxmemory, with an LRU policy.

An answer lies there as the protocol's own message, `inference.ModelInferResponse`. A Redis that is gone is an empty
store.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from clients.replies import Answer
from gateway.security.store_health import StoreHealth, redis_pool

_PREFIX = "conch:answer"


class RedisStore:
    """A `Store`; ``url`` is redis://HOST:PORT/DB."""

    def __init__(self, url: str, ttl_s: float) -> None:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        self._pool = redis_pool(url)
        self._redis = Redis(connection_pool=self._pool)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._failures = (RedisError, OSError, asyncio.TimeoutError)
        self._health = StoreHealth("the store of the result cache")

    async def get(self, model: str, key: bytes) -> Answer | None:
        """The answer, if it is there."""
        if not self._health.usable:
            return None
        try:
            found: Any = await self._redis.get(_name(model, key))
        except self._failures as error:
            self._health.failed(error)
            return None
        self._health.worked()
        return from_bytes(found) if found is not None else None

    async def put(self, model: str, key: bytes, answer: Answer) -> None:
        """Keep an answer for its time."""
        if not self._health.usable:
            return
        try:
            await self._redis.set(_name(model, key), to_bytes(answer), px=self._ttl_ms)
        except self._failures as error:
            self._health.failed(error)

    async def forget(self, model: str) -> None:
        """Drop the answers of a model, for every gateway."""
        if not self._health.usable:
            return
        try:
            names = [name async for name in self._redis.scan_iter(f"{_PREFIX}:{_escaped(model)}:*", count=1000)]
            if names:
                await self._redis.unlink(*names)
        except self._failures as error:
            self._health.failed(error)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


def _name(model: str, key: bytes) -> str:
    return f"{_PREFIX}:{model}:{key.hex()}"


def _escaped(model: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in model)


def to_bytes(answer: Answer) -> bytes:
    """An answer as the message that a server would send."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

    message = service_pb2.ModelInferResponse(model_name=answer.model, model_version=answer.version)
    for name, array in answer.items():
        is_bytes = array.dtype == object
        output = message.outputs.add(name=name, datatype="BYTES" if is_bytes else np_to_triton_dtype(array.dtype))
        output.shape.extend(array.shape)
        content = serialize_byte_tensor(array).item() if is_bytes and array.size else array.tobytes()
        message.raw_output_contents.append(content if array.size else b"")
    serialized: bytes = message.SerializeToString()
    return serialized


def from_bytes(content: bytes) -> Answer:
    """The answer in such a message."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

    message = service_pb2.ModelInferResponse.FromString(content)
    outputs = {}
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            array = deserialize_bytes_tensor(raw)
        else:
            array = np.frombuffer(raw, triton_to_np_dtype(output.datatype))
        outputs[output.name] = array.reshape(tuple(output.shape))
    return Answer(outputs, message.model_name, message.model_version)
