"""The embedded server: ready, stopped, tethered to its parent, and clear about what failed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conch.errors import ModelLoadError, ServerError
from server import lifecycle
from server.embedded import EmbeddedServer
from server.options import ServerOptions

pytestmark = pytest.mark.integration

FREE = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)


def ask(server_url: str, model: str, x: float) -> float:
    """The answer of the tiny model to one number."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}
    request = urllib.request.Request(f"{server_url}/v2/models/{model}/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return float(json.load(response)["outputs"][0]["data"][0])


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def session_members(tether: int) -> list[int]:
    """The processes of a server: the tether is its session's leader."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == tether and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_ready_answers_and_leaves_nothing(tmp_path: Path, write_python_model: Any) -> None:
    write_python_model(tmp_path / "repository", "tiny")
    patient = dataclasses.replace(FREE, exit_timeout_s=5)  # a stub takes a second to go: in less, Triton exits with 1
    with EmbeddedServer(tmp_path / "repository", patient) as server:
        assert ask(server.http_url, "tiny", 41) == 42
        scratch, members = server.log_path.parent, session_members(os.getsid(server.pid))
        assert len(members) >= 3  # the tether, tritonserver, a stub
        regions = server.shared_memory()
        assert regions
    assert not server.is_running()
    assert server.exit_code() == 0
    assert not scratch.exists()
    assert not any(alive(pid) for pid in members)
    assert not any(path.exists() for path in regions)
    assert "Started HTTPService" in server.log()


def test_models_import_nothing_of_this_checkout(tmp_path: Path, write_python_model: Any) -> None:
    write_python_model(tmp_path, "nosy", "import conch_is_not_here_by_cwd\n")
    source = """
        import sys, os
        import numpy as np
        import triton_python_backend_utils as pb_utils

        class TritonPythonModel:
            def execute(self, requests):
                seen = float(os.path.isdir("server") or os.path.isdir("conch"))
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([[seen]], "f"))]) for _ in requests]
    """
    write_python_model(tmp_path, "curious", source)
    with EmbeddedServer(tmp_path, FREE, strict=False) as server:
        assert ask(server.http_url, "curious", 0) == 0


def test_two_servers_at_once(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path / "a", "tiny", added=1)
    write_python_model(tmp_path / "b", "tiny", added=2)
    first, second = start_server(tmp_path / "a"), start_server(tmp_path / "b")
    assert (ask(first.http_url, "tiny", 0), ask(second.http_url, "tiny", 0)) == (1, 2)


PARENT = """
import sys, threading, time
from pathlib import Path
from server import lifecycle
from server.embedded import EmbeddedServer
from server.options import ServerOptions

server = EmbeddedServer(Path(sys.argv[1]), ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1))
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
time.sleep(1)  # the thread that started it is gone: the server must not go with it
assert server.is_running()
print(server.pid, server.log_path.parent, *server.shared_memory(), flush=True)
{then}
"""


@pytest.fixture
def parent(tmp_path: Path, write_python_model: Any) -> Iterator[Callable[[str], Any]]:
    """A function that runs a program which starts a server in a thread, then does as told; it and what it printed."""
    started: list[subprocess.Popen[str]] = []

    def run(then: str) -> tuple[subprocess.Popen[str], list[str]]:
        write_python_model(tmp_path / "repository", "tiny")
        code = PARENT.replace("{then}", then)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "repository")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().split()

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("then", "signal_number"),
    [
        pytest.param("time.sleep(60)", signal.SIGKILL, id="killed"),
        pytest.param("sys.exit(3)", None, id="exits-without-stop"),
    ],
)
def test_no_server_outlives_its_parent(parent: Any, then: str, signal_number: int | None) -> None:
    process, told = parent(then)
    pid, paths = int(told[0]), [Path(p) for p in told[1:]]
    assert len(paths) > 1  # the scratch folder, and shared memory
    members = session_members(os.getsid(pid)) if alive(pid) else []
    if signal_number is not None:
        assert members
        process.send_signal(signal_number)
    wait_for(lambda: not alive(pid) and not any(alive(m) for m in members))
    wait_for(lambda: not any(p.exists() for p in paths))


def test_killed_tether_takes_the_server_along(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path, "tiny")
    server = start_server(tmp_path)
    members = session_members(os.getsid(server.pid))
    os.kill(os.getsid(server.pid), signal.SIGKILL)
    wait_for(lambda: not any(alive(m) for m in members))


def test_a_killed_server_is_noticed(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path, "tiny")
    server = start_server(tmp_path)
    members = session_members(os.getsid(server.pid))
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(10) == 128 + signal.SIGKILL
    assert not server.is_running()
    wait_for(lambda: not any(alive(m) for m in members))


def test_a_fork_does_not_stop_the_server(tmp_path: Path, start_server: Any) -> None:
    server = start_server(tmp_path)
    child = os.fork()
    if child == 0:
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert server.log_path.exists()
    assert server.wait(2) is None


def test_restart_on_the_same_ports_is_quick(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path, "tiny")
    first = start_server(tmp_path)
    assert ask(first.http_url, "tiny", 1) == 2
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    ports = first.options
    again = start_server(
        tmp_path, http_port=ports.http_port, grpc_port=ports.grpc_port, metrics_port=ports.metrics_port
    )
    assert again.http_url == first.http_url
    assert ask(again.http_url, "tiny", 1) == 2


@pytest.fixture(scope="module")
def half_broken(tmp_path_factory: pytest.TempPathFactory, write_python_model: Any) -> Iterator[EmbeddedServer]:
    """A server, not strict, on one good model and one for each way to fail."""
    repository = tmp_path_factory.mktemp("half_broken")
    write_python_model(repository, "tiny")
    write_python_model(repository, "no_package", "import no_such_package_at_all\n")
    write_python_model(repository, "bad_syntax", "def (\n")
    write_python_model(repository, "bad_config", config="name: bad_config\n")
    write_python_model(repository, "no_backend", config='name: "no_backend"\nbackend: "nosuch"\n')
    with EmbeddedServer(repository, FREE, strict=False) as server:
        yield server


def test_others_are_served_when_not_strict(half_broken: EmbeddedServer) -> None:
    assert ask(half_broken.http_url, "tiny", 1) == 2
    assert len(half_broken.failures()) == 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_package", r"No module named 'no_such_package_at_all' At: \S+/no_package/1/model.py\(\d+\)"),
        ("bad_syntax", r"^SyntaxError: .*model.py, line \d"),
        ("bad_config", r"^config\.pbtxt: 1:7"),
        ("no_backend", r"backend 'nosuch'"),
    ],
)
def test_each_way_to_fail_has_its_reason(half_broken: EmbeddedServer, name: str, reason: str) -> None:
    [failed] = [f for f in half_broken.failures() if f.name == name]
    assert re.search(reason, failed.reason)
    assert "\n" not in failed.reason


def test_a_model_that_fails_stops_a_strict_start_and_is_named(tmp_path: Path, write_python_model: Any) -> None:
    write_python_model(tmp_path, "tiny")
    write_python_model(tmp_path, "broken", "import no_such_package_at_all\n")
    server = EmbeddedServer(tmp_path, FREE)
    with pytest.raises(ModelLoadError, match="No module named 'no_such_package_at_all'") as raised, server:
        pass
    assert raised.value.what == "model broken did not load"
    assert "no_such_package_at_all" in str(raised.value.fix)
    assert len(str(raised.value).splitlines()) < 6
    assert not server.is_running()


def test_explicit_start_names_a_model_that_is_not_there(tmp_path: Path) -> None:
    options = ServerOptions(
        control="explicit", load_models=("absent",), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
    )
    with pytest.raises(ModelLoadError, match="absent"), EmbeddedServer(tmp_path, options):
        pass


def test_a_taken_port_is_named(tmp_path: Path, start_server: Any) -> None:
    port = start_server(tmp_path).options.grpc_port
    with pytest.raises(ServerError, match=f"port {port} for gRPC is taken"):
        start_server(tmp_path, grpc_port=port)


def test_a_chosen_port_that_is_taken_meanwhile_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad, resolve = taken.getsockname()[1], lifecycle.resolve
        tries: list[int] = []

        def resolve_too_early(options: ServerOptions) -> ServerOptions:
            tries.append(1)
            good = resolve(options)
            return dataclasses.replace(good, grpc_port=bad) if len(tries) == 1 else good

        monkeypatch.setattr(lifecycle, "resolve", resolve_too_early)
        with EmbeddedServer(tmp_path, FREE) as server:
            assert server.options.grpc_port != bad
        assert len(tries) == 2


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no such model repository"):
        EmbeddedServer(tmp_path / "absent", FREE).start()


def test_a_dropped_version_answers_in_poll_mode(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    repository, staged = tmp_path / "repository", tmp_path / "staged"
    write_python_model(repository, "tiny", added=1)
    server = start_server(repository, control="poll", poll_interval_s=1)
    assert ask(server.http_url, "tiny", 0) == 1
    failures: list[Exception] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            try:
                assert ask(server.http_url, "tiny", 0) in (1, 2)
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        os.rename(write_python_model(staged, "tiny", version=2, added=2), repository / "tiny" / "2")
        wait_for(lambda: ask(server.http_url, "tiny", 0) == 2)
    finally:
        done.set()
        asking.join()
    assert failures == []
