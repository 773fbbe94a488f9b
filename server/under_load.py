"""Clients that ask one model all the time, check every answer, and remember how long each took.

What an update must not disturb. Each client is a thread with a `Client` of its own that never retries: a request that
failed is a failure, not a wait.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from clients import Client
from conch.errors import ClientError
from conch.tensor_spec import Array

Check = Callable[[Mapping[str, Array]], str]

# A client that failed rests a moment: a server that is gone must not be asked a million times.
_AFTER_FAILURE_S = 0.02


class WrongAnswer(Exception):
    """An answer that no version gives. A check raises it."""


class MixedAnswer(WrongAnswer):
    """An answer with parts of two versions. A check raises it."""


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent (`time.monotonic`), how long it took, which version answered or why none did."""

    client: int
    sent_at_s: float
    took_s: float
    version: str = ""
    failure: str = ""
    mixed: bool = False


@dataclass(frozen=True)
class Window:
    """A span of time, in seconds of `time.monotonic`, in which something was changed, and ``what``."""

    begins_s: float
    ends_s: float
    what: str = ""


@dataclass(frozen=True)
class LoadReport:
    """All requests by the time of their answers, and the spans in which updates ran."""

    asked: tuple[Asked, ...]
    updates: tuple[Window, ...] = ()

    @property
    def requests(self) -> int:
        """How many were sent and have ended."""
        return len(self.asked)

    @property
    def failed(self) -> int:
        """How many got no answer, or a wrong one."""
        return sum(1 for a in self.asked if a.failure)

    @property
    def mixed(self) -> int:
        """How many answers held parts of two versions; they are among the failed, too."""
        return sum(a.mixed for a in self.asked)

    @property
    def failures(self) -> dict[str, int]:
        """Each message of a failure, and how often it came; the most frequent first."""
        return dict(Counter(a.failure for a in self.asked if a.failure).most_common())

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that answered, in the order in which each was first seen."""
        return tuple(dict.fromkeys(a.version for a in self.asked if a.version))

    @property
    def counts(self) -> dict[str, int]:
        """How many requests each version answered."""
        return dict(Counter(a.version for a in self.asked if a.version))

    def turns(self, client: int) -> tuple[str, ...]:
        """The versions that one client met, in order, each run of one version once: 1, 2, 1 for a rollback."""
        return tuple(version for version, _ in itertools.groupby(a.version for a in self.asked if a.client == client))

    def during(self, *windows: Window) -> LoadReport:
        """The requests that met one of these updates."""
        return LoadReport(tuple(a for a in self.asked if any(_meets(a, window) for window in windows)), windows)

    def steady(self) -> LoadReport:
        """The requests that met no update."""
        return LoadReport(tuple(a for a in self.asked if not any(_meets(a, window) for window in self.updates)))

    def quantile_ms(self, quantile: float, *, during_updates: bool | None = None) -> float:
        """A quantile of the latencies in ms: of all, of those that met an update, or of those that met none.

        NaN when there are none.
        """
        took = sorted(
            a.took_s * 1e3
            for a in self.asked
            if not a.failure and during_updates in (None, any(_meets(a, window) for window in self.updates))
        )
        return took[max(math.ceil(quantile * len(took)) - 1, 0)] if took else math.nan

    def __str__(self) -> str:
        first = next(iter(self.failures), "")
        lines = [f"{self.requests} requests, {self.failed} failed, {self.mixed} mixed"]
        lines += [f"first failure: {first}"] if first else []
        lines.append(f"versions: {', '.join(self.versions)}")
        for name, chosen in (("steady", False), ("during updates", True)):
            p50, p99 = (self.quantile_ms(q, during_updates=chosen) for q in (0.5, 0.99))
            lines.append(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "\n".join(lines)


class Load:
    """Clients that ask until the ``with`` block ends, or ``longest_s`` have passed.

        with Load([server.http_url, server.grpc_url], "spam", {"text": "hello"}, check) as load:
            with load.update():
                publish()
            load.wait_for("2")
        assert load.report().failed == 0

    ``urls``: ``clients_per_url`` threads for each. ``inputs``: what `Client.infer` takes, for every request the same.
    ``check`` is given an answer's outputs, and says which version it came from; it raises WrongAnswer or MixedAnswer.
    ``pause_s`` between a client's requests leaves the processor to others.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        inputs: Any,
        check: Check,
        *,
        clients_per_url: int = 2,
        longest_s: float = 120.0,
        pause_s: float = 0.002,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        infer_options: Mapping[str, Any] | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._inputs, self._check = model, inputs, check
        self._longest_s, self._pause_s = longest_s, pause_s
        self._client_options = {"retries": 0, "timeout_s": timeout_s, "headers": headers, **(client_options or {})}
        self._infer_options = dict(infer_options or {})
        self._asked: list[Asked] = []
        self._updates: list[Window] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        each = [url for url in urls for _ in range(clients_per_url)]
        self._threads = [
            threading.Thread(target=self._ask, args=(number, url), name=f"load-{number}", daemon=True)
            for number, url in enumerate(each)
        ]

    def start(self) -> None:
        """Start asking; returns when every client has had an answer, or failed."""
        self._ends_at_s = time.monotonic() + self._longest_s
        for thread in self._threads:
            thread.start()
        everyone = set(range(len(self._threads)))
        self._wait(lambda: everyone <= {a.client for a in self._asked}, 30.0)

    def stop(self) -> None:
        """End the clients, each after the request that it has sent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30.0)

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def update(self, what: str = "") -> Iterator[None]:
        """Note that something changes while the block runs: its latencies are told apart from the steady ones."""
        begins_s = time.monotonic()
        try:
            yield
        finally:
            self._updates.append(Window(begins_s, time.monotonic(), what))

    def wait_for(self, version: str, timeout_s: float = 30.0) -> bool:
        """Wait until every client has had this version as its last answer; False when the time is over first."""
        everyone = set(range(len(self._threads)))
        return self._wait(lambda: everyone == {c for c, a in self._last().items() if a.version == version}, timeout_s)

    def wait_for_any(self, version: str, timeout_s: float = 30.0) -> bool:
        """Wait until some client has just been answered by this version; False when the time is over first."""
        return self._wait(lambda: bool(self._asked) and self._asked[-1].version == version, timeout_s)

    def report(self) -> LoadReport:
        """What was asked until now."""
        with self._changed:
            return LoadReport(tuple(self._asked), tuple(self._updates))

    def _last(self) -> dict[int, Asked]:
        # The newest few are enough: each client has one in flight.
        return {a.client: a for a in self._asked[-50 * len(self._threads) :]}

    def _wait(self, met: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(met, timeout_s)

    def _ask(self, number: int, url: str) -> None:
        with Client(url, **self._client_options) as client:
            while not self._stop.is_set() and time.monotonic() < self._ends_at_s:
                asked = self._once(number, client)
                with self._changed:
                    self._asked.append(asked)
                    self._changed.notify_all()
                self._stop.wait(_AFTER_FAILURE_S if asked.failure else self._pause_s)

    def _once(self, number: int, client: Client) -> Asked:
        sent_at_s = time.monotonic()
        try:
            answer = client.infer(self._model, self._inputs, **self._infer_options)
        except Exception as error:
            what = str(error) if isinstance(error, ClientError) else f"{type(error).__name__}: {error}"
            return Asked(number, sent_at_s, time.monotonic() - sent_at_s, failure=what)
        took_s = time.monotonic() - sent_at_s
        try:
            return Asked(number, sent_at_s, took_s, version=self._check(answer))
        except WrongAnswer as error:
            what = f"wrong answer: {error}"
            return Asked(number, sent_at_s, took_s, failure=what, mixed=isinstance(error, MixedAnswer))


def _meets(asked: Asked, window: Window) -> bool:
    return asked.sent_at_s < window.ends_s and asked.sent_at_s + asked.took_s > window.begins_s
