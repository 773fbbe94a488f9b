"""Shadow mode: what is sampled, dropped and compared, and that an answer never notices."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from typing import Any

import numpy as np
import pytest

from clients import AsyncClient, Client, Shadow, ShadowReport
from clients.compare import Differences, Latency
from conch.errors import InvalidInput
from conch.ledger import Alias
from tests.fakes.client_transports import Refused

CONFIG = {
    "name": "m",
    "max_batch_size": 4,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2"]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["2"]}],
}
ALIASES = {"m@canary": Alias("m.v2", 2)}


class Models:
    """`m` answers y = x at once; `m.v2` answers y = x + 1 when it is let, or fails."""

    def __init__(self, *, fails: bool = False, held: bool = False) -> None:
        self.fails = fails
        self.open = threading.Event()
        self.open.set()
        if held:
            self.open.clear()
        self.asked: list[str] = []
        self.seen: list[Any] = []

    def answer(self, operation: Any) -> Any:
        request = operation.inference
        if request is None:
            return CONFIG
        self.asked.append(request.model)
        x = request.inputs[0].array
        if request.model == "m":
            return {"y": x.copy()}
        self.seen.append(x.copy())
        if self.fails:
            raise Refused("no weights", "500")
        return {"y": x + 1}

    def holds(self, operation: Any) -> bool:
        return operation.inference is not None and operation.inference.model == "m.v2"


class ModelsTransport:
    def __init__(self, models: Models) -> None:
        self.models = models

    def call(self, operation: Any, timeout_s: float) -> Any:
        if self.models.holds(operation):
            assert self.models.open.wait(10)
        return self.models.answer(operation)

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass


class AsyncModelsTransport:
    def __init__(self, models: Models) -> None:
        self.models = models

    async def call(self, operation: Any, timeout_s: float) -> Any:
        for _ in range(1000):
            if self.models.open.is_set() or not self.models.holds(operation):
                return self.models.answer(operation)
            await asyncio.sleep(0.01)
        raise AssertionError("held for ever")

    async def close(self) -> None:
        pass


class ModelsClient(Client):
    def __init__(self, models: Models, **options: Any) -> None:
        self._models = models
        super().__init__("http://models", **options)

    def _transport(self, address: Any) -> Any:
        return ModelsTransport(self._models)


class AsyncModelsClient(AsyncClient):
    def __init__(self, models: Models, **options: Any) -> None:
        self._models = models
        super().__init__("http://models", **options)

    def _transport(self, address: Any) -> Any:
        return AsyncModelsTransport(self._models)


X = [[1.0, 2.0]]
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def ask(mode: str, models: Models, count: int, shadow: Shadow) -> tuple[list[Any], ShadowReport]:
    """Answers and the report of so many requests; a candidate that is held is let go when all are answered."""
    options: dict[str, Any] = {"aliases": ALIASES, "shadow": shadow}
    if mode == "sync":
        with ModelsClient(models, **options) as client:
            answers = [client.infer("m", X) for _ in range(count)]
            models.open.set()
            return answers, client.shadow_report(wait_s=10)

    async def run() -> tuple[list[Any], ShadowReport]:
        async with AsyncModelsClient(models, **options) as client:
            answers = [await client.infer("m", X) for _ in range(count)]
            models.open.set()
            return answers, await client.shadow_report(wait_s=10)

    return asyncio.run(run())


@MODES
def test_the_candidate_is_asked_and_compared(mode: str) -> None:
    answers, report = ask(mode, Models(), 3, Shadow("m@canary"))
    assert [a["y"].tolist() for a in answers] == [X] * 3
    assert (report.model, report.sampled, report.compared, report.waiting) == ("m", 3, 3, 0)
    (y,) = report.outputs
    assert (y.name, y.largest, y.mean, y.top1_agreement) == ("y", 1.0, 1.0, 1.0)
    assert report.candidate_took.p99_ms >= 0


@MODES
def test_a_candidate_that_fails_is_counted_and_no_answer_notices(mode: str) -> None:
    answers, report = ask(mode, Models(fails=True), 3, Shadow("m@canary"))
    assert [a["y"].tolist() for a in answers] == [X] * 3
    assert (report.compared, report.failed) == (0, 3)
    assert "no weights" in report.first_failure
    assert math.isnan(report.candidate_took.p50_ms)


@MODES
def test_a_candidate_that_hangs_delays_nobody_and_samples_are_dropped(mode: str) -> None:
    # All ten are answered while the candidate holds its first: nobody waits for it.
    answers, report = ask(mode, Models(held=True), 10, Shadow("m@canary", queue_size=4))
    assert len(answers) == 10
    assert report.sampled == 10
    assert report.dropped in (5, 6)  # four wait, and one may be under way
    assert report.compared == 10 - report.dropped


@MODES
def test_an_unknown_candidate_is_a_failure_of_its_own(mode: str) -> None:
    answers, report = ask(mode, Models(), 2, Shadow("m@canari"))
    assert len(answers) == 2
    assert report.failed == 2
    assert "did you mean m@canary?" in report.first_failure


@MODES
def test_a_share_is_drawn(mode: str) -> None:
    expected = sum(draw < 0.25 for draw in (lambda rng: [rng.random() for _ in range(40)])(random.Random(3)))
    shadow = Shadow("m@canary", share=0.25, queue_size=40, rng=random.Random(3))
    _, report = ask(mode, Models(), 40, shadow)
    assert report.sampled == expected > 0


def test_only_the_models_own_requests_are_compared() -> None:
    models = Models()
    with ModelsClient(models, aliases=ALIASES, shadow=Shadow("m@canary", of="other")) as client:
        client.infer("m", X)
        assert client.shadow_report(wait_s=5).sampled == 0
    assert models.asked == ["m"]


def test_what_the_candidate_answered_itself_is_not_asked_twice() -> None:
    models = Models()
    with ModelsClient(models, aliases=ALIASES, shadow=Shadow("m@canary")) as client:
        client.infer("m@canary", X)
        report = client.shadow_report(wait_s=5)
    assert (report.sampled, report.same, report.compared) == (1, 1, 0)
    assert models.asked == ["m.v2"]


def test_a_user_may_write_into_inputs_and_answer() -> None:
    models = Models(held=True)
    x = np.array(X, dtype=np.float32)
    with ModelsClient(models, aliases=ALIASES, shadow=Shadow("m@canary")) as client:
        answer = client.infer("m", x)
        x[:], answer["y"][:] = 99, -99
        models.open.set()
        report = client.shadow_report(wait_s=5)
    assert models.seen[0].tolist() == X
    assert report.outputs[0].largest == 1.0


def test_closing_ends_the_threads() -> None:
    with ModelsClient(Models(), aliases=ALIASES, shadow=Shadow("m@canary", workers=2)) as client:
        client.infer("m", X)
    assert not [t for t in threading.enumerate() if t.name.startswith("conch-shadow")]


def test_a_client_without_a_shadow_says_so() -> None:
    with ModelsClient(Models()) as client, pytest.raises(InvalidInput, match="no shadow"):
        client.shadow_report()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidate": "m"}, "its own shadow"),
        ({"candidate": "m@canary", "share": 1.1}, "share"),
        ({"candidate": "m@canary", "queue_size": 0}, "room"),
        ({"candidate": "m", "version": "x"}, "no model version"),
    ],
)
def test_settings_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Shadow(**arguments)


@pytest.mark.parametrize(
    ("candidate", "options", "model"),
    [("m@canary", {}, "m"), ("m", {"version": 4}, "m"), ("other", {"of": "m"}, "m")],
)
def test_whose_requests_are_compared(candidate: str, options: Any, model: str) -> None:
    assert Shadow(candidate, **options).model == model


NAN, INF = math.nan, math.inf


class TestDifferences:
    @pytest.mark.parametrize(
        ("served", "candidate", "expected"),
        [
            (np.float32([[1, 2]]), np.float32([[1, 4]]), {"largest": 2.0, "mean": 1.0, "top1_agreement": 1.0}),
            (np.float32([[1, 2]]), np.float32([[3, 2]]), {"largest": 2.0, "mean": 1.0, "top1_agreement": 0.0}),
            (np.float32([[1], [2]]), np.float32([[1], [2]]), {"largest": 0.0, "mean": 0.0, "top1_agreement": None}),
            (np.int64([3]), np.int64([5]), {"largest": 2.0, "top1_agreement": None, "equal": None}),
            (np.int64([[3, 1]]), np.int64([[5, 1]]), {"largest": 2.0, "top1_agreement": None}),
            (np.float32([NAN, INF]), np.float32([NAN, INF]), {"largest": 0.0}),
            (np.float32([NAN]), np.float32([1]), {"largest": INF}),
            (np.float32([INF]), np.float32([1]), {"largest": INF}),
            (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), {"equal": 0.5, "largest": None}),
            (np.array([True]), np.array([True]), {"equal": 1.0, "largest": None}),
            (np.float32([1, 2]), np.float32([1]), {"not_comparable": 1, "largest": None}),
            (np.float32([1]), np.array([b"1"], object), {"not_comparable": 1}),
            (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), {"largest": None, "top1_agreement": None}),
            (np.uint8([1]), np.uint8([3]), {"largest": 2.0}),
        ],
    )
    def test_one_output(self, served: Any, candidate: Any, expected: dict[str, Any]) -> None:
        differences = Differences()
        differences.add({"y": served}, {"y": candidate})
        (output,) = differences.outputs()
        assert {name: getattr(output, name) for name in expected} == expected

    def test_an_output_that_one_side_lacks(self) -> None:
        differences = Differences()
        differences.add({"y": np.float32([1])}, {"z": np.float32([1])})
        assert [(o.name, o.not_comparable) for o in differences.outputs()] == [("y", 1), ("z", 1)]

    def test_requests_add_up(self) -> None:
        differences = Differences()
        differences.add({"y": np.float32([[1, 2]])}, {"y": np.float32([[1, 2]])})
        differences.add({"y": np.float32([[1, 2]])}, {"y": np.float32([[5, 2]])})
        (output,) = differences.outputs()
        assert (output.largest, output.mean, output.top1_agreement) == (4.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("took_s", "p50", "p99"), [([0.001], 1.0, 1.0), ([n / 1000 for n in range(1, 101)], 50.0, 99.0)]
)
def test_latencies(took_s: list[float], p50: float, p99: float) -> None:
    assert Latency.of(took_s) == Latency(pytest.approx(p50), pytest.approx(p99))
