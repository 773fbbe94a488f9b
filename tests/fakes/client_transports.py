"""Servers that exist in memory: what the clients' exchange is driven against, and a transport under a real client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clients import AsyncClient, Client
from clients.address import Address
from clients.exchange import Send, Sleep, Steps
from clients.request import Operation

ECHO_CONFIG = {
    "name": "echo",
    "max_batch_size": 4,
    "input": [{"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]}],
    "output": [{"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]}],
}


class Refused(Exception):
    """An error in the shape of tritonclient's InferenceServerException."""

    def __init__(self, message: str, status: str | None = None) -> None:
        super().__init__(message)
        self._message, self._status = message, status

    def message(self) -> str:
        return self._message

    def status(self) -> str | None:
        return self._status


# Known by its name, as no library is imported to compare types.
Refused.__name__ = "InferenceServerException"

Reply = Any  # a value, an exception to raise, or a function of the Send


@dataclass
class ScriptedServer:
    """Answers operations by method name: from a list in turn, the last one for ever. Time passes in sleeps alone."""

    replies: dict[str, list[Reply]]
    now_s: float = 100.0
    sent: list[Send] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def run(self, steps: Steps[Any]) -> Any:
        try:
            step = next(steps)
            for _ in range(1000):
                try:
                    reply = self._carry_out(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("the exchange does not end")

    def methods(self) -> list[str]:
        return [send.operation.method for send in self.sent]

    def _carry_out(self, step: Send | Sleep) -> Any:
        if isinstance(step, Sleep):
            self.slept.append(step.seconds)
            self.now_s += step.seconds
            return None
        self.sent.append(step)
        script = self.replies[step.operation.method]
        reply = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(reply, Exception):
            raise reply
        return reply(step) if callable(reply) else reply


@dataclass
class Load:
    """How many calls run at a time, and the most that ever did."""

    running: int = 0
    most: int = 0
    calls: int = 0
    released: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        with self.lock:
            self.running += 1
            self.calls += 1
            self.most = max(self.most, self.running)

    def leave(self) -> None:
        with self.lock:
            self.running -= 1


def echo(operation: Operation, delay_s: Callable[[str], float]) -> tuple[float, Any]:
    """The delay and the reply of a model `echo`, which says its text again."""
    if operation.inference is None:
        return 0.0, ECHO_CONFIG
    array = operation.inference.inputs[0].array
    return delay_s(array.ravel()[0].decode()), {"text": array.astype(object)}


class EchoTransport:
    """A server with the model `echo`, in this process."""

    def __init__(self, load: Load, delay_s: Callable[[str], float]) -> None:
        self._load, self._delay_s = load, delay_s

    def call(self, operation: Operation, timeout_s: float) -> Any:
        self._load.enter()
        try:
            delay_s, reply = echo(operation, self._delay_s)
            time.sleep(delay_s)
            return reply
        finally:
            self._load.leave()

    def release(self) -> None:
        with self._load.lock:
            self._load.released += 1

    def close(self) -> None:
        pass


class AsyncEchoTransport:
    """The same for asyncio."""

    def __init__(self, load: Load, delay_s: Callable[[str], float]) -> None:
        self._load, self._delay_s = load, delay_s

    async def call(self, operation: Operation, timeout_s: float) -> Any:
        self._load.enter()
        try:
            delay_s, reply = echo(operation, self._delay_s)
            await asyncio.sleep(delay_s)
            return reply
        finally:
            self._load.leave()

    async def close(self) -> None:
        pass


class EchoClient(Client):
    """A client whose every address is an `EchoTransport`."""

    def __init__(self, load: Load, delay_s: Callable[[str], float] = lambda text: 0.0) -> None:
        self._load, self._delay_s = load, delay_s
        super().__init__("http://echo")

    def _transport(self, address: Address) -> Any:
        return EchoTransport(self._load, self._delay_s)


class AsyncEchoClient(AsyncClient):
    """A client whose every address is an `AsyncEchoTransport`."""

    def __init__(self, load: Load, delay_s: Callable[[str], float] = lambda text: 0.0) -> None:
        self._load, self._delay_s = load, delay_s
        super().__init__("http://echo")

    def _transport(self, address: Address) -> Any:
        return AsyncEchoTransport(self._load, self._delay_s)


def texts(answers: list[Any]) -> list[str]:
    """The texts of echoed answers, in order."""
    return [item.decode() for answer in answers for item in np.ravel(answer["text"])]
