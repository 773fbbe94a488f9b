"""Many requests: a bounded number at once, in order, read as they are needed; sync and async alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.in_order import in_order, in_order_async
from conch.errors import ClientError, InvalidInput
from tests.fakes.client_transports import AsyncEchoClient, EchoClient, Load, texts

MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def many(
    mode: str, load: Load, requests: Any, delay_s: Callable[[str], float] = lambda text: 0.0, **options: Any
) -> Any:
    """All answers of `infer_many`, from either client."""
    if mode == "sync":
        with EchoClient(load, delay_s) as client:
            return list(client.infer_many("echo", requests, **options))

    async def collect() -> list[Any]:
        async with AsyncEchoClient(load, delay_s) as client:
            return [answer async for answer in client.infer_many("echo", requests, **options)]

    return asyncio.run(collect())


@MODES
def test_order_is_kept_when_later_requests_are_faster(mode: str) -> None:
    load = Load()
    names = [f"{n}" for n in range(12)]
    answers = many(mode, load, [{"text": n} for n in names], lambda text: 0.05 if text in ("0", "5") else 0.0)
    assert texts(answers) == names


@MODES
@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_run_at_once_than_asked_and_all_of_them_do(mode: str, concurrency: int) -> None:
    load = Load()
    many(mode, load, [[f"{n}"] for n in range(12)], lambda text: 0.02, concurrency=concurrency)
    assert load.most == concurrency
    assert load.running == 0


@MODES
def test_an_error_is_raised_in_its_turn(mode: str) -> None:
    with pytest.raises(InvalidInput, match="text or bytes"):
        many(mode, Load(), [["a"], [1], ["b"]])


@MODES
def test_an_error_is_returned_in_its_place_where_asked(mode: str) -> None:
    answers = many(mode, Load(), [["a"], [1], ["b"]], on_error="return")
    assert [isinstance(answer, ClientError) for answer in answers] == [False, True, False]
    assert texts([answers[0], answers[2]]) == ["a", "b"]


@MODES
@pytest.mark.parametrize("concurrency", [0, -1, 1.5])
def test_concurrency_is_checked(mode: str, concurrency: Any) -> None:
    with pytest.raises(InvalidInput, match="concurrency"):
        many(mode, Load(), [["a"]], concurrency=concurrency)


@MODES
def test_nothing_asked_is_nothing_answered(mode: str) -> None:
    assert many(mode, Load(), []) == []


class Endless:
    """An iterable without an end, which counts what was taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.taken += 1
            assert self.taken < 1000, "the iterable is read to its end"
            yield self.taken


def test_items_are_read_as_they_are_needed() -> None:
    items = Endless()
    results = in_order(lambda n: n * 10, items, concurrency=4)
    assert [next(results) for _ in range(5)] == [10, 20, 30, 40, 50]
    assert items.taken <= 5 + 2 * 4
    results.close()


async def test_items_are_read_as_they_are_needed_async() -> None:
    items = Endless()

    async def call(n: int) -> int:
        return n * 10

    results = in_order_async(call, items, concurrency=4)
    assert [await anext(results) for _ in range(5)] == [10, 20, 30, 40, 50]
    assert items.taken <= 5 + 2 * 4
    await results.aclose()


def test_each_thread_ends_with_its_clean_up() -> None:
    load = Load()
    many("sync", load, [[f"{n}"] for n in range(9)], lambda text: 0.01, concurrency=3)
    assert load.released == 3


def test_a_caller_that_stops_leaves_no_thread_and_no_call_waiting() -> None:
    load = Load()
    client = EchoClient(load, lambda text: 0.01)
    answers = client.infer_many("echo", ([f"{n}"] for n in Endless()), concurrency=2)
    next(answers)
    del answers
    gc.collect()
    after = load.calls
    assert load.released == 2
    assert load.running == 0
    assert after <= 1 + 1 + 4  # the model's config, the answer, and twice the concurrency


async def test_a_caller_that_stops_cancels_what_runs() -> None:
    load = Load()
    async with AsyncEchoClient(load, lambda text: 0.0 if text == "1" else 30.0) as client:
        answers = client.infer_many("echo", ([f"{n}"] for n in Endless()), concurrency=2)
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]
    assert load.running == 0


async def test_the_first_requests_at_once_do_not_lose_each_other() -> None:
    load = Load()
    async with AsyncEchoClient(load) as client:
        answers = await asyncio.gather(*(client.infer("echo", text=f"{n}") for n in range(8)))
    assert texts(list(answers)) == [f"{n}" for n in range(8)]
