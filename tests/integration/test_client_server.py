"""The clients against a real server: values there and back, what it says of itself, every error a stranger may meet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients import text
from conch.errors import (
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    RequestTooLarge,
    ServerUnavailable,
)
from conch.tensor_spec import DATA_TYPES
from tests.fakes.any_client import MODES, AnyClient, url_of
from tests.fakes.client_models import ECHO, ECHO_CONFIG, add_client_models

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    add_client_models(triton)
    return triton


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Any, mode: str) -> Iterator[AnyClient]:
    with AnyClient(mode, url_of(server, mode)) as connected:
        yield connected


class TestValues:
    @pytest.mark.parametrize("datatype", [t.wire for t in DATA_TYPES])
    def test_every_type_goes_there_and_back(self, client: AnyClient, datatype: str) -> None:
        value: list[Any] = [b"a\x00", b"", "é"] if datatype == "BYTES" else [0, 1, 1]
        answer = client.infer("client_mirror", {datatype: value})[datatype]
        expected = [b"a\x00", b"", "é".encode()] if datatype == "BYTES" else value
        assert answer.tolist() == expected
        assert answer.dtype == {t.wire: t.numpy for t in DATA_TYPES}[datatype]

    @pytest.mark.parametrize("value", [["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"])])
    def test_two_texts_are_a_batch_of_two(self, client: AnyClient, value: Any) -> None:
        assert text(client.infer("client_echo", text=value)["text"]).tolist() == [["a"], ["b"]]

    def test_one_text_is_a_batch_of_one(self, client: AnyClient) -> None:
        assert client.infer("client_echo", "안녕")["text"].tolist() == [["안녕".encode()]]

    def test_only_the_outputs_that_are_asked_for_come(self, client: AnyClient) -> None:
        answer = client.infer("client_mirror", {"FP32": [1.5], "INT8": [2]}, outputs=["INT8"])
        assert {name: array.tolist() for name, array in answer.items()} == {"INT8": [2]}

    def test_many_requests_keep_their_order(self, client: AnyClient) -> None:
        names = [f"text {n}" for n in range(30)]
        answers = client.responses("infer_many", "client_echo", names, concurrency=4)
        assert [answer["text"].item().decode() for answer in answers] == names

    def test_a_model_whose_signature_changes_is_asked_anew(self, server: Any, mode: str) -> None:
        name = f"client_swap_{mode.replace('-', '_')}"
        server.add(name, ECHO_CONFIG, {"model.py": ECHO})
        with AnyClient(mode, url_of(server, mode)) as client:
            assert client.infer(name, text="a")["text"].tolist() == [[b"a"]]
            time.sleep(1.1)  # Triton compares modification times
            config = ECHO_CONFIG.replace("TYPE_STRING", "TYPE_INT64").replace("[ 1 ]", "[ 2 ]")
            server.add(name, config, {"model.py": ECHO.replace("array.ravel()[0].decode()", "'' ")}, version=2)
            assert client.infer(name, text=[1, 2])["text"].tolist() == [[1, 2]]
        server.unload(name)


class TestDescriptions:
    def test_readiness(self, client: AnyClient) -> None:
        assert client.ready("client_echo") is True
        assert client.ready("client_echo", 1) is True
        assert client.ready("client_broken") is False
        assert client.ready("client_nowhere") is False

    def test_metadata(self, client: AnyClient) -> None:
        metadata = client.metadata("client_count")
        assert metadata.versions == ("1",)
        assert metadata.decoupled is True
        assert [s.describe(batched=metadata.signature.batched) for s in metadata.signature.inputs] == ["n INT32 [1]"]
        assert client.metadata("client_echo").signature.max_batch_size == 8
        assert all(spec.optional for spec in client.metadata("client_mirror").signature.inputs)

    def test_the_server_says_its_version(self, client: AnyClient) -> None:
        metadata = client.server()
        assert metadata.name == "triton"
        assert "statistics" in metadata.extensions

    def test_the_index_has_states_and_reasons(self, client: AnyClient) -> None:
        states = {state.name: state for state in client.models()}
        assert states["client_echo"].is_ready
        assert not states["client_broken"].is_ready
        assert "no such module: weights" in states["client_broken"].reason

    def test_statistics_count_items_and_runs(self, client: AnyClient) -> None:
        (before,) = client.statistics("client_echo")
        client.infer("client_echo", text=["a", "b", "c"])
        (after,) = client.statistics("client_echo", 1)
        assert after.inferences - before.inferences == 3
        assert after.executions - before.executions == 1
        assert after.batches[3] == before.batches.get(3, 0) + 1
        assert after.success.count == before.success.count + 1
        assert after.success.mean_ms > 0
        assert after.last_inference_ms >= max(before.last_inference_ms, 1)
        assert {s.name for s in client.statistics()} >= {"client_echo", "client_grid"}


class TestErrors:
    @pytest.mark.parametrize(
        ("model", "tensors", "options", "kind", "parts"),
        [
            ("client_eco", {"text": "a"}, {}, ModelNotFound, ("client_eco", "did you mean client_echo?")),
            ("client_echo", {"text": "a"}, {"version": 7}, ModelNotFound, ("no version 7", "version 1")),
            (
                "client_broken",
                {"text": "a"},
                {},
                ModelNotReady,
                ("client_broken is not ready", "UNAVAILABLE", "no such module: weights", "mend the version"),
            ),
            (
                "client_echo",
                {"txt": "a"},
                {},
                InvalidInput,
                ("no input named txt", "text BYTES [batch, 1]", "did you mean text?"),
            ),
            ("client_echo", {}, {}, InvalidInput, ("input text is missing", "text BYTES [batch, 1]")),
            (
                "client_echo",
                {"text": [["a", "b"]]},
                {},
                InvalidInput,
                ("wrong shape", "text BYTES [1, 2]", "text BYTES [batch, 1]"),
            ),
            ("client_echo", {"text": [1.5]}, {}, InvalidInput, ("text or bytes", "float 1.5", "str()")),
            ("client_mirror", {"INT8": [300]}, {}, InvalidInput, ("wrong type", "300", "INT8 holds -128 to 127")),
            ("client_echo", {"text": ["a"] * 9}, {}, InvalidInput, ("a batch of 9", "at most 8", "infer_many")),
            ("client_echo", {"text": "a"}, {"outputs": ["texts"]}, InvalidInput, ("no output named texts", "text?")),
            ("client_echo", {"text": "fail"}, {}, InferenceFailed, ("the model refused", "server's log")),
            ("client_echo", {"text": "raise"}, {}, InferenceFailed, ("a bug in the model",)),
            ("client_count", {"n": 1}, {}, InvalidInput, ("answers in a stream", "stream")),
        ],
    )
    def test_a_stranger_understands(
        self, client: AnyClient, model: str, tensors: Any, options: Any, kind: type[ClientError], parts: tuple[str, ...]
    ) -> None:
        with pytest.raises(kind) as met:
            client.infer(model, tensors, **options)
        message = str(met.value)
        missing = [part for part in (model, "://127.0.0.1:", *parts) if part not in message]
        assert missing == [], message
        assert type(met.value) is kind

    def test_a_deadline_that_passes(self, client: AnyClient) -> None:
        client.infer("client_echo", text="a")
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.3 s") as met:
            client.infer("client_echo", text="sleep 1.5", timeout_s=0.3)
        assert time.monotonic() - started < 1.4
        assert "timeout_s" in str(met.value.fix)
        # the client is as good as before, and no late answer is taken for another's
        assert client.infer("client_echo", text="b", timeout_s=10)["text"].tolist() == [[b"b"]]

    def test_a_host_that_does_not_exist(self, mode: str) -> None:
        scheme = mode.partition("-")[0]
        with (
            AnyClient(mode, f"{scheme}://no-such-host.invalid:8000", timeout_s=10) as client,
            pytest.raises(ServerUnavailable, match="not known"),
        ):
            client.infer("spam", text="a")

    def test_nobody_at_the_address(self, mode: str) -> None:
        scheme = mode.partition("-")[0]
        with (
            AnyClient(mode, f"{scheme}://127.0.0.1:1", retries=1) as client,
            pytest.raises(ServerUnavailable, match=r"no server answers at \w+://127\.0\.0\.1:1") as met,
        ):
            client.infer("spam", text="a")
        assert "conch serve" in str(met.value.fix)

    def test_the_other_protocols_port(self, server: Any, mode: str) -> None:
        wrong = server.http_url if mode.startswith("grpc") else server.grpc_url
        url = f"{mode.partition('-')[0]}://{wrong.partition('://')[2]}"
        with AnyClient(mode, url, retries=0, timeout_s=10) as client, pytest.raises(ServerUnavailable):
            client.infer("client_echo", text="a")

    @pytest.mark.parametrize("mode", ["grpc", "grpc-async"])
    def test_a_request_over_the_message_size(self, server: Any, mode: str) -> None:
        with AnyClient(mode, server.grpc_url, max_message_bytes=10_000) as client:
            with pytest.raises(RequestTooLarge, match="over the size limit") as met:
                client.infer("client_echo", text="x" * 20_000)
            assert "shared_memory" in str(met.value.fix)
            assert client.infer("client_echo", text="x")["text"].item() == b"x"

    @pytest.mark.parametrize("mode", ["grpc", "http"])
    def test_a_large_message_within_the_limit(self, server: Any, mode: str) -> None:
        with AnyClient(mode, url_of(server, mode)) as client:
            assert len(client.infer("client_echo", text=b"x" * 20_000_000)["text"].item()) == 20_000_000


class TestAddresses:
    def test_a_dead_address_is_passed_over(self, server: Any, mode: str) -> None:
        dead = f"{mode.partition('-')[0]}://127.0.0.1:1"
        with AnyClient(mode, [dead, url_of(server, mode)]) as client:
            answers = [client.infer("client_echo", text=f"{n}")["text"].item() for n in range(4)]
        assert answers == [b"0", b"1", b"2", b"3"]

    def test_protocols_can_be_mixed(self, server: Any) -> None:
        with AnyClient("http", [server.http_url, server.grpc_url]) as client:
            answers = [client.infer("client_echo", text=f"{n}")["text"].item() for n in range(4)]
            assert answers == [b"0", b"1", b"2", b"3"]
            assert len(client.responses("stream", "client_count", n=2)) == 2
