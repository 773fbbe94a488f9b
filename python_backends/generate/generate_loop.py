"""The stepping thread: requests join and leave between the engine's steps, and their text goes out as it is made.

A response costs about as much CPU as a token of a small model. So all streams together get `max_responses_per_second`:
with few streams every token is a response, with many the tokens of a stream that came in between go together. A first
token, and an end, never wait.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from generate_job import Job
from generate_made import Usage
from generate_refusal import Refused, not_a_grammar, queue_full
from generate_settings import Settings

if TYPE_CHECKING:
    from generate_engine import Engine

# A disconnected client is noticed within this time. Asking is a message to the server's process and back.
CANCEL_CHECK_S = 0.05
MANY_SCHEMAS = 1000


class Metrics(Protocol):
    """What generate_metrics.py counts."""

    def count(self, name: str, more: int = 1) -> None:
        """Add to a counter."""

    def observe(self, name: str, seconds: float) -> None:
        """Add a time."""

    def report(self, usage: Usage, queued: int, *, now: bool = False) -> None:
        """Say what the engine does."""


class EngineLoop:
    """One engine and its thread."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics, log: Callable[[str], None]) -> None:
        """Start the thread; ``log`` takes what an operator should know."""
        self._engine, self._settings, self._metrics, self._log = engine, settings, metrics, log
        self._ids = itertools.count()
        self._running: list[Job] = []
        self._wake = threading.Condition(threading.RLock())  # guards the four below
        self._waiting: deque[Job] = deque()
        self._refused = 0
        self._closed = False
        self._tried: dict[str, str] = {}  # schemas by what is wrong with them, "" for nothing
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a request, for the next step or the next free place. Raises: Refused when too many wait."""
        limit = self._settings.max_queue_size
        with self._wake:
            if problem := self._tried.get(job.ask.sampling.held or ""):
                raise Refused(problem)
            waiting = len(self._waiting) + len(self._running) - self._settings.max_num_seqs
            if waiting >= limit:
                self._refused += 1
                raise queue_full(waiting, limit)
            self._waiting.append(job)
            self._wake.notify()

    def close(self) -> None:
        """End the thread after its step; requests that still run are told that the model goes."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        for job in (*self._running, *self._waiting):
            job.listener.fail("the model is being unloaded")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._running or self._closed)
                if self._closed:
                    return
            try:
                self._turn()
            except Exception as error:
                # Whatever it is: those who wait must hear of it, and the next ones be answered.
                self._fail(list(self._running), str(error))

    def _turn(self) -> None:
        """One step of the engine, and what is to be done before and after it."""
        self._admit()
        self._leave_cancelled()
        for adapter in self._engine.busy():
            self._step(adapter)
        for job in list(self._running):
            try:
                self._collect(job)
            except Exception as error:
                self._fail([job], str(error))
        self._report()

    def _admit(self) -> None:
        """Start as many of those that wait as there are places; of schemas new to the engine, one at a time.

        With prefix caching one request a step: OpenVINO GenAI 2026.4 mixes up texts that begin in one step with what
        another request has just read, or left when it was cancelled (test_generate_engine.py shows it).
        """
        starting: list[Job] = []
        most = 1 if self._settings.enable_prefix_caching else self._settings.max_num_seqs
        with self._wake:
            untried = any(self._is_untried(job) for job in self._running)
            while self._waiting and len(self._running) < self._settings.max_num_seqs and len(starting) < most:
                if self._is_untried(self._waiting[0]):
                    if untried:
                        break
                    untried = True
                starting.append(self._waiting.popleft())
                self._running.append(starting[-1])
            refused, self._refused = self._refused, 0
        self._metrics.count("requests_refused_total", refused)
        for job in starting:
            self._metrics.count("prompt_tokens_total", len(job.prompt))
            self._start(job)

    def _start(self, job: Job) -> None:
        """Hand a request to the engine, with the tokens that it has already when it starts again."""
        if problem := self._tried.get(job.ask.sampling.held or ""):
            self._fail([job], problem)
            return
        try:
            job.handle = self._engine.add(
                next(self._ids), job.prompt + job.tokens, job.ask.sampling, job.max_tokens - len(job.tokens)
            )
        except RuntimeError as error:
            self._fail([job], str(error))

    def _is_untried(self, job: Job) -> bool:
        return job.ask.sampling.held is not None and job.ask.sampling.held not in self._tried

    def _leave_cancelled(self) -> None:
        now_s = time.monotonic()
        with self._wake:
            present = [job for job in (*self._running, *self._waiting) if job.next_check_s <= now_s]
        for job in present:
            job.next_check_s = now_s + CANCEL_CHECK_S
            if job.listener.cancelled():
                self._leave(job)
                job.listener.drop()
                self._metrics.count("requests_cancelled_total")

    def _step(self, adapter: str | None) -> None:
        jobs = [job for job in self._running if job.ask.sampling.lora == adapter]
        try:
            self._engine.step(adapter, len(jobs))
        except RuntimeError as error:
            # The pipeline's state is unknown now. A new one goes on with what ran, after the tokens that it has.
            self._log(f"generate: the engine failed and is opened again: {error}")
            self._engine.reopen(adapter)
            culprits = [job for job in jobs if self._is_untried(job)]
            for job in culprits:
                self._remember(job, not_a_grammar(str(error)))
                self._fail([job], not_a_grammar(str(error)))
            for job in (job for job in jobs if job not in culprits):
                # A text that is held to a schema cannot go on in the middle of it.
                if job.restarted or (job.tokens and job.ask.sampling.held):
                    self._fail([job], str(error))
                else:
                    job.restarted = not culprits
                    self._start(job)

    def _remember(self, job: Job, problem: str) -> None:
        """Whether the engine takes this request's schema. Forgets all when there are very many."""
        with self._wake:
            if len(self._tried) >= MANY_SCHEMAS:
                self._tried.clear()
            self._tried[job.ask.sampling.held or ""] = problem

    def _fail(self, jobs: list[Job], message: str) -> None:
        self._log(f"generate: {len(jobs)} requests failed: {message}")
        for job in jobs:
            self._leave(job)
            try:
                job.listener.fail(message)
            except Exception as error:
                self._log(f"generate: and its client could not be told: {error}")

    def _collect(self, job: Job) -> None:
        """Take a request's new tokens, and send what is due."""
        now_s = time.monotonic()
        job.take(self._engine.read(job.handle), now_s)
        if job.tokens and self._is_untried(job):
            self._remember(job, "")
        if job.finish_reason == "dropped":
            self._fail([job], "the cache has no room for this request; raise cache_size_gb")
        elif job.finish_reason:
            self._leave(job)
            job.listener.send(job.piece())
            self._count_finished(job)
        elif job.ask.stream and job.has_text and now_s >= job.next_send_s:
            job.next_send_s = now_s + len(self._running) / self._settings.max_responses_per_second
            job.listener.send(job.piece())

    def _leave(self, job: Job) -> None:
        """Free a request's place; the engine forgets it at its next step."""
        if job.handle is not None:
            job.handle.cancel()
        with self._wake:
            for jobs in (self._running, self._waiting):
                if job in jobs:
                    jobs.remove(job)
                    self._metrics.count("output_tokens_total", job.output_tokens)

    def _count_finished(self, job: Job) -> None:
        self._metrics.count("requests_finished_total")
        if job.first_token_s is not None:
            self._metrics.observe("time_to_first_token_seconds", job.first_token_s - job.arrived_s)
            if job.output_tokens > 1:
                per_token_s = (job.last_token_s - job.first_token_s) / (job.output_tokens - 1)
                self._metrics.observe("time_per_output_token_seconds", per_token_s)

    def _report(self) -> None:
        with self._wake:
            queued, idle = len(self._waiting), not (self._waiting or self._running)
        if idle:
            # A step without requests lets the engine forget those that left.
            for adapter in self._engine.busy():
                self._step(adapter)
        self._metrics.report(self._engine.usage(), queued, now=idle)
