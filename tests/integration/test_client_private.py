"""The clients against servers of their own: killed and back, closed to strangers, behind TLS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import TLS, RetryPolicy
from conch.errors import ClientError, InvalidInput, ServerUnavailable
from server.options import Restriction
from tests.fakes.any_client import MODES, AnyClient, url_of
from tests.fakes.client_models import ECHO, ECHO_CONFIG, GRID, GRID_CONFIG
from tests.fakes.tls_proxy import Certificates, TlsProxy, make_certificates

pytestmark = pytest.mark.integration

# Enough copies for every request of a test to run at once.
AT_ONCE = ECHO_CONFIG + "    instance_group { count: 8 kind: KIND_CPU }\n"

# Tries until the server is back; a short cap, so that the test does not wait.
PATIENT = RetryPolicy(retries=500, base_s=0.1, cap_s=0.2)


@pytest.fixture
def repository(tmp_path: Path, write_python_model: Callable[..., Path]) -> Path:
    write_python_model(tmp_path / "repository", "client_echo", ECHO, AT_ONCE)
    return tmp_path / "repository"


def outcome_of(call: Callable[[], Any], outcomes: dict[str, Any], name: str) -> threading.Thread:
    """Run a call in a thread, and keep what it returned or raised."""

    def run() -> None:
        try:
            outcomes[name] = call()
        except Exception as error:
            outcomes[name] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_server_killed_in_mid_request_and_back_a_moment_later(
    repository: Path, start_server: Callable[..., Any], write_python_model: Callable[..., Path]
) -> None:
    write_python_model(repository, "client_grid", GRID, GRID_CONFIG)
    server = start_server(repository)
    ports = {"http_port": server.options.http_port, "grpc_port": server.options.grpc_port}
    patient = {mode: AnyClient(mode, url_of(server, mode), retries=PATIENT) for mode in MODES}
    hasty = {mode: AnyClient(mode, url_of(server, mode), retries=0) for mode in MODES}
    sharing = AnyClient("grpc", server.grpc_url, retries=PATIENT, shared_memory=True)
    grid = np.ones((1, 128, 256), np.float32)
    assert sharing.infer("client_grid", grid=grid, note="a")["grid"].sum() == grid.sum()
    clients = {**{f"patient {m}": c for m, c in patient.items()}, **{f"hasty {m}": c for m, c in hasty.items()}}
    for client in clients.values():
        client.infer("client_echo", text="warm")
    outcomes: dict[str, Any] = {}
    threads = [
        outcome_of(lambda c=client: c.infer("client_echo", text="sleep 1.5"), outcomes, name)  # type: ignore[misc]
        for name, client in clients.items()
    ]
    time.sleep(0.5)
    assert outcomes == {}, "every request is still running when the server dies"
    server.kill()
    again = start_server(repository, **ports)
    for thread in threads:
        thread.join(timeout=60)
    answered = {name: outcome["text"].item() for name, outcome in outcomes.items() if isinstance(outcome, dict)}
    assert answered == {f"patient {mode}": b"sleep 1.5" for mode in MODES}
    for mode in MODES:
        error = outcomes[f"hasty {mode}"]
        assert type(error) is ServerUnavailable, repr(error)
        assert f"no server answers at {url_of(again, mode)}" in str(error)
        assert "conch serve" in str(error.fix)
        # and the same client asks the server that came back
        deadline = time.monotonic() + 20
        while not hasty[mode].ready("client_echo"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert hasty[mode].infer("client_echo", text="back")["text"].item() == b"back"
    # the new server knows nothing of the shared memory, and is told
    assert sharing.infer("client_grid", grid=grid * 2, note="a")["grid"].sum() == 2 * grid.sum()
    for client in (*clients.values(), sharing):
        client.__exit__(None, None, None)
    assert [name for name in os.listdir("/dev/shm") if name.startswith(f"conch-{os.getpid()}-")] == []


def test_a_restricted_server_wants_the_key(repository: Path, start_server: Callable[..., Any]) -> None:
    apis = ("inference", "metadata", "model-config")
    server = start_server(repository, restrictions=(Restriction(apis, "authorization", "Bearer secret"),))
    for mode in MODES:  # one server for all: starting one is what costs
        with AnyClient(mode, url_of(server, mode), api_key="secret") as client:
            assert client.infer("client_echo", text="a")["text"].item() == b"a"
            assert client.metadata("client_echo").versions == ("1",)
        with AnyClient(mode, url_of(server, mode), headers={"Authorization": "Bearer secret"}) as client:
            assert client.infer("client_echo", text="a")["text"].item() == b"a"
        for key in (None, "wrong"):
            with AnyClient(mode, url_of(server, mode), api_key=key) as client:
                with pytest.raises(ClientError, match="without the right header") as met:
                    client.infer("client_echo", text="a")
                assert "api_key" in str(met.value.fix)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_grpc_with_tls(repository: Path, start_server: Callable[..., Any], certificates: Certificates) -> None:
    flags = (
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={certificates.cert}",
        f"--grpc-server-key={certificates.key}",
    )
    server = start_server(repository, extra_flags=flags)
    url = server.grpc_url.replace("grpc://", "grpcs://")
    for mode in ("grpc", "grpc-async"):
        with AnyClient(mode, url, tls=TLS(ca_file=certificates.ca)) as client:
            assert client.infer("client_echo", text="a")["text"].item() == b"a"
        with AnyClient(mode, url, retries=0, timeout_s=10) as client:
            with pytest.raises(ServerUnavailable, match="no secure connection") as met:
                client.infer("client_echo", text="a")
            assert "ca_file" in str(met.value.fix)
        with AnyClient(mode, server.grpc_url, retries=0, timeout_s=10) as client, pytest.raises(ServerUnavailable):
            client.infer("client_echo", text="a")
        with pytest.raises(InvalidInput, match="no way to trust any certificate"):
            AnyClient(mode, url, tls=TLS(insecure=True))


@pytest.fixture(scope="module")
def plain(triton: Any) -> Any:
    triton.add("client_echo", ECHO_CONFIG, {"model.py": ECHO})
    return triton


@pytest.fixture(params=["http", "http-async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestHttps:
    @pytest.fixture
    def proxy(self, plain: Any, certificates: Certificates) -> Iterator[TlsProxy]:
        with TlsProxy(plain.server.options.http_port, certificates) as proxy:
            yield proxy

    @pytest.mark.parametrize("trust", ["authority", "insecure"])
    def test_a_trusted_server(self, proxy: TlsProxy, certificates: Certificates, mode: str, trust: str) -> None:
        tls = TLS(ca_file=certificates.ca) if trust == "authority" else TLS(insecure=True)
        with AnyClient(mode, proxy.url, tls=tls, timeout_s=20) as client:
            assert client.infer("client_echo", text="a")["text"].item() == b"a"

    def test_a_server_that_nobody_vouched_for(self, proxy: TlsProxy, mode: str) -> None:
        with AnyClient(mode, proxy.url, timeout_s=20) as client:
            with pytest.raises(ServerUnavailable, match="no secure connection") as met:
                client.infer("client_echo", text="a")
            assert "ca_file" in str(met.value.fix)

    def test_https_to_a_plain_port(self, plain: Any, mode: str) -> None:
        url = plain.http_url.replace("http://", "https://")
        with AnyClient(mode, url, retries=0, timeout_s=20) as client, pytest.raises(ServerUnavailable):
            client.infer("client_echo", text="a")

    def test_a_server_that_asks_for_the_clients_certificate(
        self, plain: Any, certificates: Certificates, mode: str
    ) -> None:
        with TlsProxy(plain.server.options.http_port, certificates, mutual=True) as proxy:
            own = TLS(ca_file=certificates.ca, cert_file=certificates.cert, key_file=certificates.key)
            with AnyClient(mode, proxy.url, tls=own, timeout_s=20) as client:
                assert client.infer("client_echo", text="a")["text"].item() == b"a"
            none = TLS(ca_file=certificates.ca)
            with AnyClient(mode, proxy.url, tls=none, retries=0, timeout_s=20) as client, pytest.raises(ClientError):
                client.infer("client_echo", text="a")
