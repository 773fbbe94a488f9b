"""The stepping thread: who joins and leaves when, what is sent together, and what a failing engine leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.generate_code import module

loop_module = module("generate_loop")
job_module = module("generate_job")
made_module = module("generate_made")
request = module("generate_request")
sampling = module("generate_sampling")
settings = module("generate_settings")
Refused = module("generate_refusal").Refused

STOP_TOKEN = 3
STEP_S = 0.002
BAD, GOOD = "[a-", "[a-c]+"


class Handle:
    """One request in the counting engine; its text is abcabc..., its last token a stop token when it has an end."""

    def __init__(self, length: int, ends: bool, held: str | None, said: int) -> None:
        self.made, self.length, self.ends, self.held, self.said, self.gone = 0, length, ends, held, said, False

    def cancel(self) -> None:
        self.gone = True


class CountingEngine:
    """Says the next letter for every request at every step, as the real one does; it fails when told to."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.added: list[tuple[str | None, int]] = []
        self.fails = self.reopened = 0
        self.together = 0
        self.joined = self.most_at_once = 0  # since the last step

    def add(self, request_id: int, prompt: list[int], asked: Any, max_tokens: int) -> Handle:
        handle = Handle(max_tokens, prompt == [STOP_TOKEN], asked.held, sum(token > STOP_TOKEN for token in prompt))
        self.handles.append(handle)
        self.joined += 1
        self.most_at_once = max(self.most_at_once, self.joined)
        self.added.append((asked.lora, request_id))
        return handle

    def busy(self) -> list[None]:
        return [None] if self.handles else []

    def step(self, adapter: None, requests: int) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("out of luck")
        if any(handle.held == BAD for handle in self.handles):
            raise RuntimeError("/deep/path/converter.cc:12: no such grammar")
        time.sleep(STEP_S)
        self.joined = 0
        self.together = max(self.together, sum(not handle.gone for handle in self.handles))
        self.handles = [handle for handle in self.handles if not handle.gone]
        for handle in self.handles:
            handle.made += 1

    def read(self, handle: Handle) -> Any:
        if handle.made == 0:
            return made_module.Made([], [], "")
        last = handle.made == handle.length
        token = STOP_TOKEN if last and handle.ends else ord("abc"[(handle.said + handle.made - 1) % 3])
        return made_module.Made([token], [-0.5], ("stop" if handle.ends else "length") if last else "")

    def reopen(self, adapter: None) -> None:
        self.reopened += 1
        self.handles = []

    def usage(self) -> Any:
        return made_module.Usage(len(self.handles), 0, 0.0)


class Metrics:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.times: list[str] = []
        self.last: tuple[Any, int] | None = None

    def count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    def observe(self, name: str, seconds: float) -> None:
        self.times.append(name)

    def report(self, usage: Any, queued: int, *, now: bool = False) -> None:
        self.last = (usage, queued)


class Client:
    """Keeps the pieces; ``ended`` is set when no more come."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.failed = ""
        self.gone = False
        self.ended = threading.Event()
        self.dropped = threading.Event()

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def send(self, piece: Any) -> None:
        assert not self.ended.is_set(), "a piece after the last"
        self.pieces.append(piece)
        if piece.finish_reason:
            self.ended.set()

    def fail(self, message: str) -> None:
        self.failed = message
        self.ended.set()

    def drop(self) -> None:
        self.dropped.set()

    def cancelled(self) -> bool:
        return self.gone


class Loop:
    """A loop over the counting engine, and how to ask it."""

    def __init__(self, **changed: Any) -> None:
        self.engine, self.metrics, self.log = CountingEngine(), Metrics(), []
        chosen = {"max_num_seqs": 8, "max_queue_size": 8, "max_responses_per_second": 100_000, **changed}
        self.settings = settings.Settings(Path(), 1000, frozenset({STOP_TOKEN}), **chosen)
        self.loop = loop_module.EngineLoop(self.engine, self.settings, self.metrics, self.log.append)

    def ask(
        self, max_tokens: int = 9, *, stream: bool = True, prompt: tuple[int, ...] = (1, 2), **asked: Any
    ) -> Client:
        client = Client()
        asking = request.Ask("in ", None, stream, not stream, sampling.Sampling(**asked), frozenset())
        decode: Callable[[Any], str] = lambda tokens: "".join(map(chr, tokens))  # noqa: E731
        job = job_module.Job(
            asking, list(prompt), max_tokens, frozenset({STOP_TOKEN}), client, decode, time.monotonic()
        )
        self.loop.submit(job)
        return client


@pytest.fixture
def start() -> Iterator[Callable[..., Loop]]:
    loops = []

    def make(**changed: Any) -> Loop:
        loops.append(Loop(**changed))
        return loops[-1]

    yield make
    for loop in loops:
        loop.loop.close()


def test_every_token_is_a_piece_when_there_is_time(start: Callable[..., Loop]) -> None:
    client = start().ask(6)
    assert client.ended.wait(5)
    assert [piece.text for piece in client.pieces] == list("abcabc")
    assert [piece.output_tokens for piece in client.pieces] == [1] * 6
    assert [piece.finish_reason for piece in client.pieces] == [""] * 5 + ["length"]


def test_a_whole_text_is_one_piece_with_its_prompt(start: Callable[..., Loop]) -> None:
    client = start().ask(6, stream=False)
    assert client.ended.wait(5)
    assert [(piece.text, piece.output_tokens, piece.input_tokens) for piece in client.pieces] == [("in abcabc", 6, 2)]


def test_a_stop_token_is_counted_and_not_said(start: Callable[..., Loop]) -> None:
    client = start().ask(4, prompt=(STOP_TOKEN,))
    assert client.ended.wait(5)
    assert (client.text, sum(piece.output_tokens for piece in client.pieces)) == ("abc", 4)
    assert client.pieces[-1].finish_reason == "stop"


def test_a_stop_string_frees_the_place_at_once(start: Callable[..., Loop]) -> None:
    loop = start()
    client = loop.ask(900, stop=("ca",))
    assert client.ended.wait(5)
    assert (client.text, client.pieces[-1].finish_reason) == ("ab", "stop")
    after = loop.ask(1)
    assert after.ended.wait(5)
    assert loop.engine.handles == [] or all(handle.gone for handle in loop.engine.handles)


def test_few_responses_carry_more_tokens_each_but_the_first(start: Callable[..., Loop]) -> None:
    client = start(max_responses_per_second=50).ask(60)
    assert client.ended.wait(5)
    assert client.text == "abc" * 20
    assert client.pieces[0].text == "a", "the first token waited"
    assert len(client.pieces) < 30
    assert sum(piece.output_tokens for piece in client.pieces) == 60


def test_a_request_joins_those_that_run(start: Callable[..., Loop]) -> None:
    loop = start()
    clients = [loop.ask(20) for _ in range(5)]
    assert all(client.ended.wait(5) for client in clients)
    assert {client.text for client in clients} == {("abc" * 7)[:20]}
    assert loop.engine.together > 1


def test_no_more_run_at_once_than_there_are_places(start: Callable[..., Loop]) -> None:
    loop = start(max_num_seqs=2)
    clients = [loop.ask(10) for _ in range(6)]
    assert all(client.ended.wait(5) for client in clients)
    assert loop.engine.together == 2


@pytest.mark.parametrize(("caching", "at_once"), [(True, 1), (False, 5)])
def test_with_prefix_caching_one_request_joins_a_step(start: Callable[..., Loop], caching: bool, at_once: int) -> None:
    loop = start(enable_prefix_caching=caching, max_num_seqs=8)
    with loop.loop._wake:  # all five wait before the thread looks
        clients = [loop.ask(20) for _ in range(5)]
    assert all(client.ended.wait(5) for client in clients)
    assert loop.engine.most_at_once == at_once


def test_a_full_queue_refuses_and_serves_again_later(start: Callable[..., Loop]) -> None:
    loop = start(max_num_seqs=1, max_queue_size=1)
    first, second = loop.ask(50), loop.ask(1)
    with pytest.raises(Refused, match=r"^queue full: "):
        loop.ask(1)
    assert first.ended.wait(5)
    assert second.ended.wait(5)
    assert loop.ask(1).ended.wait(5)
    assert loop.metrics.counts["requests_refused_total"] == 1


@pytest.mark.parametrize("place", ["running", "waiting"])
def test_who_is_gone_leaves(start: Callable[..., Loop], place: str) -> None:
    loop = start(max_num_seqs=1)
    first = loop.ask(100_000)
    second = loop.ask(100_000)
    gone, other = (first, second) if place == "running" else (second, first)
    gone.gone = True
    assert gone.dropped.wait(5)
    sent = len(gone.pieces)
    before = len(other.pieces)
    deadline_s = time.monotonic() + 5
    while len(other.pieces) < before + 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(other.pieces) >= before + 3, "the other stands still"
    assert len(gone.pieces) == sent
    assert loop.metrics.counts["requests_cancelled_total"] == 1


def test_an_engine_that_failed_goes_on_where_it_was(start: Callable[..., Loop]) -> None:
    loop = start()
    client = loop.ask(60)
    while len(client.pieces) < 10:
        time.sleep(0.001)
    loop.engine.fails = 1
    assert client.ended.wait(5)
    assert (client.text, client.failed, loop.engine.reopened) == ("abc" * 20, "", 1)
    assert "out of luck" in loop.log[-1]


def test_an_engine_that_fails_again_says_so(start: Callable[..., Loop]) -> None:
    loop = start()
    loop.engine.fails = 2
    client = loop.ask(5)
    assert client.ended.wait(5)
    assert client.failed == "out of luck"
    after = loop.ask(3)
    assert after.ended.wait(5)
    assert after.text == "abc"


def test_who_brings_a_bad_grammar_is_refused_and_the_others_go_on(start: Callable[..., Loop]) -> None:
    loop = start()
    others = [loop.ask(60), loop.ask(60, regex=GOOD), loop.ask(40, stream=False)]
    while len(others[0].pieces) < 5:
        time.sleep(0.001)
    bad = [loop.ask(5, regex=BAD) for _ in range(3)]
    assert all(client.ended.wait(5) for client in (*others, *bad))
    assert {client.failed for client in bad} == {
        "invalid: the schema cannot be used to hold a text to it: no such grammar"
    }
    assert [others[0].text, others[2].text] == ["abc" * 20, ("in " + "abc" * 14)[:43]]
    assert others[1].failed, "the middle of a schema cannot be taken up"
    with pytest.raises(Refused, match="no such grammar"):
        loop.ask(5, regex=BAD)
    opened = loop.engine.reopened
    assert loop.ask(5, regex=GOOD).ended.wait(5)
    assert loop.engine.reopened == opened


def test_a_client_that_cannot_be_sent_to_does_not_stop_the_thread(
    start: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = start()

    def broken(self: Client, piece: Any) -> None:
        raise OSError("no such request")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", broken)
        failed = loop.ask(5)
        assert failed.ended.wait(5)
    client = loop.ask(3)
    assert client.ended.wait(5)
    assert client.text == "abc"


def test_closing_tells_those_that_still_run() -> None:
    loop = Loop()
    client = loop.ask(100_000)
    loop.loop.close()
    assert client.ended.wait(1)
    assert "unloaded" in client.failed


def test_what_is_counted(start: Callable[..., Loop]) -> None:
    loop = start()
    client = loop.ask(7)
    assert client.ended.wait(5)
    deadline_s = time.monotonic() + 5
    while loop.metrics.last != (made_module.Usage(0, 0, 0.0), 0) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    counts = loop.metrics.counts
    assert (counts["prompt_tokens_total"], counts["output_tokens_total"]) == (2, 7)
    assert counts["requests_finished_total"] == 1
    assert loop.metrics.times == ["time_to_first_token_seconds", "time_per_output_token_seconds"]
    assert loop.metrics.last == (made_module.Usage(0, 0, 0.0), 0), "idle, and the gauges say otherwise"


def test_log_probabilities_come_with_their_tokens(start: Callable[..., Loop]) -> None:
    client = start().ask(3, logprobs=True)
    assert client.ended.wait(5)
    assert [piece.cumulative_logprob for piece in client.pieces] == [-0.5, -1.0, -1.5]
    assert client.pieces[1].logprobs == '[{"98": {"logprob": -0.5, "rank": null, "decoded_token": "b"}}]'
