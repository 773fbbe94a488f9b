"""Shadow mode: a share of a model's requests goes to a candidate as well, behind the answer's back.

The user's answer is there before the candidate is asked. What is sampled is copied into a bounded queue, and dropped,
and counted, when the queue is full; nothing that the candidate does can delay, change or fail an answer. Here is all of
it but the I/O: `Client` empties the queue from threads, `AsyncClient` from tasks.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clients.compare import Differences, Latency, OutputDifference
from clients.request import InferRequest, Question, version_name
from clients.routing import Route
from conch.errors import InvalidInput
from conch.ledger import is_alias
from conch.tensor_spec import Array

# So many latencies are kept for the quantiles.
_LATENCIES = 10_000


@dataclass(frozen=True)
class Shadow:
    """What a client sends to whom besides: `Client(url, aliases=..., shadow=Shadow("spam@canary", share=0.1))`.

    ``candidate`` is an alias or a model, with ``version`` where it has none of its own. ``of`` is the model whose
    requests are compared, by default the candidate's own name. ``share``: of its requests, 0 to 1. ``queue_size``
    samples wait at most, ``workers`` are sent at a time, each given up after ``timeout_s``.
    """

    candidate: str
    version: int | str | None = None
    of: str = ""
    share: float = 1.0
    queue_size: int = 64
    workers: int = 1
    timeout_s: float = 10.0
    rng: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput("share is a share of the requests", got=self.share, expected="0 to 1")
        if self.queue_size < 1 or self.workers < 1:
            got = f"queue_size {self.queue_size}, workers {self.workers}"
            raise InvalidInput("a shadow needs room to work", got=got, expected="whole numbers above 0")
        if not (self.of or is_alias(self.candidate) or version_name(self.version)):
            raise InvalidInput(
                "a model cannot be its own shadow",
                got=self.candidate,
                expected="an alias, a version, or the model that it is compared with",
                fix='Shadow("spam@canary"), Shadow("spam", version=4), or Shadow("other", of="spam")',
            )

    @property
    def model(self) -> str:
        """The public name of the model whose requests are compared."""
        return self.of or self.candidate.partition("@")[0]


@dataclass(frozen=True)
class ShadowReport:
    """What came out so far.

    ``sampled`` requests were to be sent to the candidate as well. Of these ``compared`` had both answers, ``dropped``
    found the queue full, ``same`` had been answered by the candidate itself, and ``failed`` got no answer from it,
    ``first_failure`` being the first's message; the rest wait. Latencies are those of the compared.
    """

    model: str
    candidate: str
    sampled: int
    compared: int
    dropped: int
    same: int
    failed: int
    first_failure: str
    outputs: tuple[OutputDifference, ...]
    served: Latency
    candidate_took: Latency

    @property
    def waiting(self) -> int:
        """How many are still to be sent, or under way."""
        return self.sampled - self.compared - self.dropped - self.same - self.failed


@dataclass(frozen=True)
class Sample:
    """One request as it was sent, and its answer: copies, as users may write into theirs."""

    route: Route
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    answer: Mapping[str, Array]
    took_s: float

    def question(self, route: Route) -> Question:
        """The same request for a candidate."""
        return Question(route.model, self.inputs, version=route.version, outputs=self.outputs)


class Mirror:
    """The samples that wait, and what became of the others. Thread-safe."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self._waiting: queue.Queue[Sample | None] = queue.Queue()
        self._changed = threading.Condition()
        self._differences = Differences()
        self._served_s: deque[float] = deque(maxlen=_LATENCIES)
        self._candidate_s: deque[float] = deque(maxlen=_LATENCIES)
        self._sampled = self._compared = self._dropped = self._same = self._failed = 0
        self._first_failure = ""

    def take(self, route: Route, request: InferRequest, answer: Mapping[str, Array], took_s: float) -> None:
        """Sample a request that was answered, or not. Never raises, never waits."""
        if route.public != self.shadow.model or self.shadow.rng.random() >= self.shadow.share:
            return
        with self._changed:
            self._sampled += 1
            if self._waiting.qsize() >= self.shadow.queue_size:
                self._dropped += 1
                return
        try:
            inputs = {t.name: np.array(t.array) for t in request.inputs}
            copied = {name: np.array(array) for name, array in answer.items()}
            self._waiting.put_nowait(Sample(route, inputs, request.outputs, copied, took_s))
        except Exception as error:
            self.failed(error)

    def next(self) -> Sample | None:
        """The next sample, waited for; None at the end."""
        return self._waiting.get()

    def next_now(self) -> Sample | None:
        """The next sample, if one waits."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    @property
    def has_waiting(self) -> bool:
        """Whether a sample waits."""
        return not self._waiting.empty()

    def end(self, workers: int) -> None:
        """Let go of what waits, and let so many workers end."""
        while self.next_now() is not None:
            with self._changed:
                self._dropped += 1
        for _ in range(workers):
            self._waiting.put_nowait(None)

    def compared(self, sample: Sample, answer: Mapping[str, Array], took_s: float) -> None:
        """Note the candidate's answer."""
        with self._changed:
            self._differences.add(sample.answer, answer)
            self._served_s.append(sample.took_s)
            self._candidate_s.append(took_s)
            self._compared += 1
            self._changed.notify_all()

    def same(self) -> None:
        """Note that the candidate itself had answered."""
        with self._changed:
            self._same += 1
            self._changed.notify_all()

    def failed(self, error: Exception) -> None:
        """Note that there is no answer to compare."""
        with self._changed:
            self._failed += 1
            self._first_failure = self._first_failure or str(error)
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until nothing waits and nothing is under way, so long at most."""
        ends_at_s = time.monotonic() + timeout_s
        with self._changed:
            while self._report().waiting and (left_s := ends_at_s - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def report(self) -> ShadowReport:
        """What came out so far."""
        with self._changed:
            return self._report()

    def _report(self) -> ShadowReport:
        return ShadowReport(
            model=self.shadow.model,
            candidate=self.shadow.candidate,
            sampled=self._sampled,
            compared=self._compared,
            dropped=self._dropped,
            same=self._same,
            failed=self._failed,
            first_failure=self._first_failure,
            outputs=self._differences.outputs(),
            served=Latency.of(self._served_s),
            candidate_took=Latency.of(self._candidate_s),
        )
