"""The result cache: what makes two questions one, how long an answer is kept, and one flight for equal questions."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from clients.replies import Answer
from conch.errors import DeadlineExceeded
from conch.tensor_spec import Array, ModelSignature
from gateway.cache import redis_store
from gateway.cache.fingerprint import fingerprint
from gateway.cache.flights import Flights
from gateway.cache.may_cache import may_cache
from gateway.cache.memory_store import MemoryStore
from gateway.cache.result_cache import ResultCache
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError
from gateway.request_info import new_info


def texts(*items: bytes) -> Array:
    return np.array(items, dtype=object)


def answer(value: float = 1.0, version: str = "1") -> Answer:
    return Answer({"y": np.array([value], np.float32)}, "m", version)


INPUTS = {"text": texts(b"a", b"bc")}


@pytest.mark.parametrize(
    ("model", "version", "inputs", "outputs"),
    [
        ("other", "1", INPUTS, ()),
        ("m", "2", INPUTS, ()),
        ("m", "1", INPUTS, ("y",)),
        ("m", "1", {"txet": INPUTS["text"]}, ()),
        ("m", "1", {"text": texts(b"ab", b"c")}, ()),
        ("m", "1", {"text": texts(b"abc")}, ()),
        ("m", "1", {"text": texts(b"a", b"bc").reshape(1, 2)}, ()),
        ("m", "1", {"text": texts(b"a", b"bd")}, ()),
        ("m", "1", {**INPUTS, "more": texts(b"")}, ()),
    ],
)
def test_another_question_has_another_fingerprint(
    model: str, version: str, inputs: dict[str, Array], outputs: tuple[str, ...]
) -> None:
    assert fingerprint(model, version, inputs, outputs) != fingerprint("m", "1", INPUTS, ())


def test_type_and_shape_count_where_the_bytes_are_the_same() -> None:
    arrays = [np.zeros(4, np.int32), np.zeros((2, 2), np.int32), np.zeros(4, np.float32), np.zeros(2, np.int64)]
    assert len({fingerprint("m", "1", {"x": array}, ()) for array in arrays}) == len(arrays)


def test_the_order_of_inputs_and_outputs_does_not_count() -> None:
    x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert fingerprint("m", "1", {"x": x, "y": y}, ("a", "b")) == fingerprint("m", "1", {"y": y, "x": x}, ("b", "a"))


def test_a_view_counts_by_its_content() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fingerprint("m", "1", {"x": x.T}, ()) == fingerprint("m", "1", {"x": np.ascontiguousarray(x.T)}, ())


class Model:
    """Answers slowly or at once, and counts."""

    def __init__(self, *, version: str = "1") -> None:
        self.asked = 0
        self.version = version
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.cancelled = 0
        self.failures: list[Exception] = []

    async def __call__(self) -> Answer:
        self.asked += 1
        number = self.asked
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return answer(float(number), self.version)


def new_cache(**options: object) -> ResultCache:
    return ResultCache(MemoryStore(**{"max_bytes": 10_000, "ttl_s": 60.0, **options}))  # type: ignore[arg-type]


async def ask(cache: ResultCache, model: Model, text: bytes = b"a", version: str = "1") -> tuple[float, str]:
    info = new_info()
    found = await cache.infer("m", version, {"text": texts(text)}, (), model, info)
    return float(found["y"][0]), info.record.cache


async def test_an_equal_question_is_not_asked_again() -> None:
    cache, model = new_cache(), Model()
    assert await ask(cache, model) == (1.0, "miss")
    assert await ask(cache, model) == (1.0, "hit")
    assert await ask(cache, model, b"b") == (2.0, "miss")
    assert await ask(cache, model, version="2") == (3.0, "miss")


async def test_what_a_caller_does_to_its_answer_is_its_own_affair() -> None:
    cache, model = new_cache(), Model()
    first = await cache.infer("m", "1", INPUTS, (), model, new_info())
    del first["y"]
    second = await cache.infer("m", "1", INPUTS, (), model, new_info())
    with pytest.raises(ValueError, match="read-only"):
        second["y"][0] = 7
    assert (second.model, second.version) == ("m", "1")


async def test_an_answer_grows_old() -> None:
    now_s = 0.0
    cache, model = new_cache(ttl_s=5.0, clock=lambda: now_s), Model()
    await ask(cache, model)
    now_s = 4.9
    assert await ask(cache, model) == (1.0, "hit")
    now_s = 5.0
    assert await ask(cache, model) == (2.0, "miss")


async def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    store = MemoryStore(1200, 60)
    await store.put("m", b"1", answer())
    await store.put("m", b"2", answer())
    assert await store.get("m", b"1") is not None
    await store.put("m", b"3", answer())
    assert await store.get("m", b"2") is None
    assert await store.get("m", b"1") is not None
    assert store.bytes <= 1200


async def test_an_answer_larger_than_the_store_is_not_kept() -> None:
    store = MemoryStore(1200, 60)
    await store.put("m", b"small", answer())
    await store.put("m", b"large", Answer({"y": texts(b"x" * 5000)}))
    assert await store.get("m", b"large") is None
    assert await store.get("m", b"small") is not None


async def test_putting_again_counts_once() -> None:
    store = MemoryStore(5000, 60)
    await store.put("m", b"1", answer())
    size = store.bytes
    await store.put("m", b"1", answer())
    assert store.bytes == size
    await store.forget("m")
    assert store.bytes == 0


async def test_a_model_that_changed_is_forgotten_and_others_are_not() -> None:
    store = MemoryStore(5000, 60)
    await store.put("m", b"1", answer())
    await store.put("n", b"1", answer())
    await store.forget("m")
    assert await store.get("m", b"1") is None
    assert await store.get("n", b"1") is not None


async def test_an_answer_asked_before_the_change_is_not_kept_after_it() -> None:
    cache, model = new_cache(), Model()
    model.may_answer.clear()
    asking = asyncio.create_task(ask(cache, model))
    await asyncio.sleep(0.01)
    await cache.forget("m")
    model.may_answer.set()
    assert await asking == (1.0, "miss")
    assert await ask(cache, model) == (2.0, "miss")


async def test_an_answer_of_another_version_is_not_kept_under_this_one() -> None:
    cache, model = new_cache(), Model(version="2")
    await ask(cache, model, version="1")
    assert (await ask(cache, model, version="1"))[1] == "miss"


async def test_equal_questions_at_a_time_are_asked_once() -> None:
    cache, model = new_cache(), Model()
    model.may_answer.clear()
    asking = [asyncio.create_task(ask(cache, model)) for _ in range(20)]
    await asyncio.sleep(0.01)
    model.may_answer.set()
    answers = await asyncio.gather(*asking)
    assert model.asked == 1
    assert sorted(how for _, how in answers) == ["miss"] + ["shared"] * 19


async def test_the_first_caller_may_leave() -> None:
    cache, model = new_cache(), Model()
    model.may_answer.clear()
    first = asyncio.create_task(ask(cache, model))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(ask(cache, model))
    await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    model.may_answer.set()
    assert await second == (1.0, "shared")
    assert (model.asked, model.cancelled) == (1, 0)
    assert await ask(cache, model) == (1.0, "hit")


async def test_when_the_last_caller_leaves_the_work_is_cancelled() -> None:
    flights, model = Flights(), Model()
    model.may_answer.clear()
    asking = [asyncio.create_task(flights.fly(b"k", model, lambda: 5.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert (model.asked, model.cancelled, len(flights)) == (1, 1, 0)


@pytest.mark.parametrize("own", [GatewayError("late", status=504), GatewayError("gone", status=499)])
async def test_a_failure_that_is_the_first_ones_own_makes_the_others_ask_again(own: Exception) -> None:
    flights, model = Flights(), Model()
    model.may_answer.clear()
    model.failures = [own]
    asking = [asyncio.create_task(flights.fly(b"k", model, lambda: 5.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    model.may_answer.set()
    first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert first is own
    assert all(not isinstance(other, BaseException) for other in others)
    assert model.asked == 2


async def test_a_failure_of_the_model_is_everybodys_and_is_not_kept() -> None:
    flights, model = Flights(), Model()
    model.may_answer.clear()
    failure = GatewayError("broken", status=500)
    model.failures = [failure]
    asking = [asyncio.create_task(flights.fly(b"k", model, lambda: 5.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    model.may_answer.set()
    assert await asyncio.gather(*asking, return_exceptions=True) == [failure] * 3
    assert (model.asked, len(flights)) == (1, 0)
    assert not (await flights.fly(b"k", model, lambda: 5.0))[1]


def _twice(array: Array) -> Array:
    found = redis_store.from_bytes(redis_store.to_bytes(Answer({"y": array}, "m", "7")))
    assert (found.model, found.version) == ("m", "7")
    return found["y"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(6, dtype=np.float32).reshape(2, 3).T,
        lambda: np.array([[True, False]]),
        lambda: np.zeros((0, 4), np.int64),
        lambda: texts(b"", b"\xff\x00", "é".encode()).reshape(3, 1),
        lambda: np.empty((0,), dtype=object),
        lambda: np.float16([1.5]),
    ],
)
def test_an_answer_comes_back_from_bytes_as_it_was(make: Callable[[], Array]) -> None:
    array = make()
    back = _twice(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tolist() == array.tolist()


async def test_a_store_that_is_gone_is_an_empty_one() -> None:
    store = redis_store.RedisStore("redis://127.0.0.1:1/0", 60)
    await store.put("m", b"1", answer())
    assert await store.get("m", b"1") is None
    await store.forget("m")
    await store.close()


async def test_who_joins_waits_no_longer_than_its_own_deadline() -> None:
    flights, model = Flights(), Model()
    model.may_answer.clear()
    first = asyncio.create_task(flights.fly(b"k", model, lambda: 5.0))
    await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceeded):
        await flights.fly(b"k", model, lambda: 0.02)
    model.may_answer.set()
    assert not (await first)[1]


def served(**fields: object) -> ServedModel:
    signature = ModelSignature((), (), 0)
    return ServedModel(
        **{"name": "m", "version": "1", "versions": ("1",), "kind": "table", "signature": signature, **fields}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({}, True),
        ({"kind": "tensors"}, True),
        ({"kind": "generate"}, False),
        ({"decoupled": True}, False),
        ({"config": {"sequence_batching": {}}}, False),
        ({"parameters": {"deterministic": "false"}}, False),
    ],
)
def test_only_models_that_answer_an_equal_question_equally_are_remembered(fields: dict[str, object], may: bool) -> None:
    assert may_cache(served(**fields)) is may
