"""Many calls at once, a bounded number of them, their results in the order of the items. Knows nothing of servers.

Items are read as they are needed: at most twice ``concurrency`` of them are ahead of what the caller has taken, so that
one slow call does not leave the others idle, and an endless iterable is fine.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from conch.errors import InvalidInput

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_concurrency(concurrency: int) -> None:
    """Raise InvalidInput unless it is a whole number above 0."""
    if not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidInput("concurrency is out of range", got=concurrency, expected="a whole number above 0")


def in_order(
    call: Callable[[Item], Result],
    items: Iterable[Item],
    concurrency: int,
    finish: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Yield ``call(item)`` for each item, from ``concurrency`` threads; each thread runs ``finish`` at its end.

    An exception of a call is raised in its place. When the caller stops, waiting calls are dropped, and running ones
    are waited for.
    """
    check_concurrency(concurrency)
    tasks: queue.SimpleQueue[tuple[Future[Result], Item] | None] = queue.SimpleQueue()
    waiting: deque[Future[Result]] = deque()
    threads: list[threading.Thread] = []

    def work() -> None:
        try:
            while (task := tasks.get()) is not None:
                future, item = task
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(call(item))
                except BaseException as error:
                    future.set_exception(error)
        finally:
            finish()

    try:
        for item in items:
            if len(threads) < concurrency:
                threads.append(threading.Thread(target=work, name=f"conch-infer-{len(threads)}", daemon=True))
                threads[-1].start()
            waiting.append(Future())
            tasks.put((waiting[-1], item))
            if len(waiting) >= 2 * concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()


async def in_order_async(
    call: Callable[[Item], Awaitable[Result]], items: Iterable[Item], concurrency: int
) -> AsyncGenerator[Result, None]:
    """Yield ``await call(item)`` for each item, ``concurrency`` of them at a time.

    An exception of a call is raised in its place. When the caller stops, what has not ended is cancelled.
    """
    check_concurrency(concurrency)
    free = asyncio.Semaphore(concurrency)
    waiting: deque[asyncio.Task[Result]] = deque()

    async def work(item: Item) -> Result:
        async with free:
            return await call(item)

    try:
        for item in items:
            waiting.append(asyncio.create_task(work(item)))
            if len(waiting) >= 2 * concurrency:
                yield await waiting[0]
                waiting.popleft()
        while waiting:
            yield await waiting[0]
            waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
