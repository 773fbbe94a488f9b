"""The steps of both clients, driven without a server: tries, waits, deadlines, and models that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clients.attempts import RetryPolicy
from clients.inference import Inference
from clients.request import Question
from conch.errors import (
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ServerUnavailable,
)
from tests.fakes.client_transports import ECHO_CONFIG, Refused, ScriptedServer

REFUSED = ConnectionRefusedError(111, "Connection refused")
ANSWER = {"text": np.array([[b"a"]], dtype=object)}
INDEX = [
    {"name": "spam", "version": "1", "state": "READY"},
    {"name": "churn", "version": "2", "state": "UNAVAILABLE", "reason": "Internal: no weights\n\nAt:\n  line"},
    {"name": "churn", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
]


def exchange(server: ScriptedServer, urls: Any = "http://a", **options: Any) -> Inference:
    return Inference(urls, clock=server.clock, **options)


def ask(server: ScriptedServer, asked: Inference, text: Any = "a", timeout_s: float | None = None) -> Any:
    return server.run(asked.infer(Question("echo", None, {"text": text}), timeout_s))


def echo_server(*infer: Any, config: Any = ECHO_CONFIG, **others: Any) -> ScriptedServer:
    return ScriptedServer({"get_model_config": [config], "infer": list(infer), **others})


def test_waits_double_are_jittered_and_capped() -> None:
    policy = RetryPolicy(retries=9, base_s=0.2, cap_s=2.0)
    bounds = [policy.wait_s(tries, uniform=lambda low, high: high) for tries in range(1, 7)]
    assert bounds == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert policy.wait_s(3, uniform=lambda low, high: low) == 0.0


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        Refused("busy", "503"),
        Refused("failed to connect to all addresses", "StatusCode.UNAVAILABLE"),
        Refused("Exceeds maximum queue size", "StatusCode.UNAVAILABLE"),
    ],
)
def test_what_is_safe_is_tried_again(error: Exception) -> None:
    server = echo_server(error, error, ANSWER)
    assert ask(server, exchange(server))["text"].tolist() == [[b"a"]]
    assert server.methods() == ["get_model_config", "infer", "infer", "infer"]
    assert len(server.slept) == 2
    assert 0 <= server.slept[0] <= 0.2
    assert 0 <= server.slept[1] <= 0.4


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused("bad", "400"), InvalidInput),
        (Refused("too many", "429"), ServerUnavailable),
        (Refused("the model refused", "500"), InferenceFailed),
        (Refused("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED"), DeadlineExceeded),
        (Refused("This protocol is restricted", "StatusCode.UNAVAILABLE"), ClientError),
        (TimeoutError("timed out"), DeadlineExceeded),
    ],
)
def test_what_is_not_safe_is_sent_once(error: Exception, kind: type[ClientError]) -> None:
    server = echo_server(error)
    with pytest.raises(kind):
        ask(server, exchange(server))
    assert server.methods().count("infer") == 1
    assert server.slept == []


@pytest.mark.parametrize("retries", [0, 3])
def test_tries_end_with_the_last_failure(retries: int) -> None:
    server = echo_server(REFUSED)
    with pytest.raises(ServerUnavailable, match="no server answers at http://a:8000"):
        ask(server, exchange(server, retries=retries))
    assert server.methods().count("infer") == retries + 1


def test_the_deadline_covers_tries_and_waits() -> None:
    server = echo_server(REFUSED)
    with pytest.raises(DeadlineExceeded) as late:
        ask(server, exchange(server, retries=RetryPolicy(10_000, base_s=1.0)), timeout_s=3.0)
    assert server.now_s <= 103.0
    assert "3 s" in str(late.value)
    assert "Connection refused" in str(late.value)
    assert all(send.timeout_s <= 3.0 for send in server.sent)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), "1"])
def test_a_deadline_is_a_time(timeout_s: Any) -> None:
    server = echo_server(ANSWER)
    with pytest.raises(InvalidInput, match="timeout_s"):
        ask(server, exchange(server), timeout_s=timeout_s)


def test_another_address_is_asked_at_once() -> None:
    def answer(send: Any) -> Any:
        if send.address.host == "a":
            raise REFUSED
        return ANSWER

    server = echo_server(answer)
    asked = exchange(server, ["http://b", "http://a"])
    for _ in range(4):
        ask(server, asked)
    hosts = [send.address.host for send in server.sent if send.operation.method == "infer"]
    assert hosts == ["a", "b", "b", "b", "b"]
    assert server.slept == [0.0]


def test_a_signature_is_read_once() -> None:
    server = echo_server(ANSWER)
    asked = exchange(server)
    ask(server, asked)
    ask(server, asked)
    assert server.methods() == ["get_model_config", "infer", "infer"]


NEW_CONFIG = {**ECHO_CONFIG, "input": [{"name": "text", "data_type": "TYPE_INT64", "dims": ["2"]}]}


def test_values_that_fit_the_new_signature_alone_are_checked_against_it() -> None:
    server = echo_server(ANSWER)
    asked = exchange(server)
    ask(server, asked)
    server.replies["get_model_config"] = [NEW_CONFIG]
    ask(server, asked, text=[[1, 2]])
    assert server.methods() == ["get_model_config", "infer", "get_model_config", "infer"]


def test_a_request_that_the_server_refuses_is_sent_again_only_when_the_model_has_changed() -> None:
    wider = {**ECHO_CONFIG, "max_batch_size": 8}
    server = echo_server(ANSWER)
    asked = exchange(server)
    ask(server, asked)
    server.replies.update(get_model_config=[wider], infer=[Refused("unexpected shape", "400"), ANSWER])
    assert ask(server, asked) == ANSWER
    server.replies.update(infer=[Refused("unexpected shape", "400")])
    with pytest.raises(InvalidInput, match="refuses"):
        ask(server, asked)


@pytest.mark.parametrize(
    ("model", "version", "kind", "parts"),
    [
        ("spem", "", ModelNotFound, ("no model spem", "one of spam", "did you mean spam?")),
        ("zzz", "", ModelNotFound, ("no model zzz", "one of spam", "conch status")),
        ("spam", "7", ModelNotFound, ("no version 7", "version 1")),
        ("churn", "", ModelNotReady, ("not ready", "version 1 is UNAVAILABLE: unloaded", "load it")),
        ("churn", "2", ModelNotReady, ("UNAVAILABLE: Internal: no weights", "mend the version")),
    ],
)
def test_an_unknown_model_is_explained_from_the_index(
    model: str, version: str, kind: type[ClientError], parts: tuple[str, ...]
) -> None:
    unknown = Refused(f"Request for unknown model: '{model}' is not found", "404")
    server = ScriptedServer({"get_model_config": [unknown], "get_model_repository_index": [INDEX]})
    with pytest.raises(kind) as refused:
        server.run(exchange(server).infer(Question(model, None, {"text": "a"}, version), None))
    missing = [part for part in parts if part not in str(refused.value)]
    assert missing == [], str(refused.value)


def test_without_an_index_the_servers_own_words_stay() -> None:
    unknown = Refused("Request for unknown model: 'x' has no available versions", "404")
    server = ScriptedServer({"get_model_config": [unknown], "get_model_repository_index": [Refused("no", "403")]})
    with pytest.raises(ModelNotReady, match="x is not ready"):
        server.run(exchange(server).infer(Question("x", None, {"text": "a"}), None))


def test_a_server_that_nobody_reaches_is_not_ready_and_is_asked_once() -> None:
    server = ScriptedServer({"is_server_ready": [REFUSED]})
    assert server.run(exchange(server).ready(None, None, None)) is False
    assert len(server.sent) == 1


DECOUPLED = {**ECHO_CONFIG, "model_transaction_policy": {"decoupled": True}}


def test_a_decoupled_model_is_streamed_not_asked() -> None:
    server = echo_server(ANSWER, config=DECOUPLED)
    with pytest.raises(InvalidInput, match="answers in a stream"):
        ask(server, exchange(server))
    assert "infer" not in server.methods()


def test_a_stream_needs_a_grpc_address_and_takes_it_among_others() -> None:
    server = echo_server(config=DECOUPLED)
    question = Question("echo", None, {"text": "a"})
    with pytest.raises(InvalidInput, match="needs gRPC"):
        server.run(exchange(server).stream_request(question, None))
    send = server.run(exchange(server, ["http://a", "grpc://b"]).stream_request(question, None))
    assert str(send.address) == "grpc://b:8001"
    assert send.operation.retry is False


class TestSharedMemory:
    def ask(self, server: ScriptedServer, asked: Inference) -> Any:
        return ask(server, asked, text=[["a" * 100]])

    def test_a_region_is_registered_once_used_again_and_given_back(self) -> None:
        server = echo_server(ANSWER, register_system_shared_memory=[None], unregister_system_shared_memory=[None])
        asked = exchange(server, shared_memory=16)
        self.ask(server, asked)
        self.ask(server, asked)
        server.run(asked.close())
        assert server.methods() == [
            "get_model_config",
            "register_system_shared_memory",
            "infer",
            "infer",
            "unregister_system_shared_memory",
        ]

    def test_a_server_that_was_started_again_gets_the_region_again(self) -> None:
        lost = Refused("Unable to find system shared memory region: 'x'", "400")
        server = echo_server(ANSWER, register_system_shared_memory=[None], unregister_system_shared_memory=[None])
        asked = exchange(server, shared_memory=16)
        self.ask(server, asked)
        server.replies["infer"] = [lost, ANSWER]
        self.ask(server, asked)
        server.run(asked.close())
        assert server.methods().count("register_system_shared_memory") == 2

    def test_a_region_that_stays_lost_is_an_error(self) -> None:
        lost = Refused("Unable to find system shared memory region: 'x'", "400")
        server = echo_server(lost, register_system_shared_memory=[None], unregister_system_shared_memory=[None])
        asked = exchange(server, shared_memory=16)
        with pytest.raises(InvalidInput, match="refuses"):
            self.ask(server, asked)
        server.run(asked.close())
        assert server.methods().count("infer") == 2

    @pytest.mark.parametrize(
        ("error", "regions"),
        [(TimeoutError(), 2), (Refused("the model refused", "500"), 1), (Refused("bad", "400"), 1)],
    )
    def test_only_a_region_whose_request_has_ended_is_used_again(self, error: Exception, regions: int) -> None:
        server = echo_server(error, register_system_shared_memory=[None], unregister_system_shared_memory=[None])
        asked = exchange(server, shared_memory=16)
        with pytest.raises(ClientError):
            self.ask(server, asked)
        server.replies["infer"] = [ANSWER]
        self.ask(server, asked)
        server.run(asked.close())
        names = {s.operation.inference.region.name for s in server.sent if s.operation.inference}
        assert len(names) == regions
        assert server.methods().count("unregister_system_shared_memory") == regions

    def test_a_server_elsewhere_is_explained(self) -> None:
        cannot = Refused("Unable to open shared memory region: '/x'", "400")
        server = echo_server(ANSWER, register_system_shared_memory=[cannot])
        asked = exchange(server, shared_memory=16)
        with pytest.raises(InvalidInput, match="cannot reach this machine's shared memory"):
            self.ask(server, asked)
        server.run(asked.close())

    def test_small_tensors_travel_in_the_message(self) -> None:
        server = echo_server(ANSWER)
        ask(server, exchange(server, shared_memory=True), text="small")
        assert server.methods() == ["get_model_config", "infer"]
