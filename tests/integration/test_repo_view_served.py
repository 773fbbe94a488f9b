"""`conch repo list`, `show`, `alias` and `prune` against a real server in poll mode, which is asked all the while."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from clients import Client
from server.embedded import EmbeddedServer
from server.repo_view.cli import alias, list_models, prune, show
from server.running import announce

pytestmark = pytest.mark.integration


class Asking:
    """Asks a model without a version, again and again, until it is stopped; keeps the answers to x = 0."""

    def __init__(self, url: str, name: str) -> None:
        self.answers: list[float] = []
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, name))

    def _run(self, url: str, name: str) -> None:
        with Client(url) as client:
            while not self._stop.is_set():
                try:
                    answer = client.infer(name, {"x": np.zeros((1, 1), np.float32)})
                    self.answers.append(float(answer["y"][0, 0]))
                except Exception as error:
                    self.failures.append(error)
                self._stop.wait(0.005)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


@pytest.fixture
def served(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer], write_python_model: Callable[..., Path]
) -> Iterator[EmbeddedServer]:
    """Model `plus` with versions 1 to 5, of which 5 serves, and a broken one; the server is announced."""
    root = tmp_path / "model_repository"
    for version in (1, 2, 3, 4, 5):
        write_python_model(root, "plus", version=version, added=version)
    write_python_model(root, "broken", source="raise ValueError('no weights')")
    server = start_server(root, control="poll", poll_interval_s=1, strict=False)
    with announce(root, server.http_url, server.grpc_url, "poll"):
        yield server


def run(command: Any, server: EmbeddedServer, *words: str) -> dict[str, Any]:
    root = str(server.repositories[0])
    result = CliRunner().invoke(command, [*words, "--json", "--repository", root], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def listed_when_settled(server: EmbeddedServer) -> dict[str, Any]:
    """The list once no model is on its way: a server does not wait for what fails."""
    for _ in range(60):
        listed = run(list_models, server)
        states = [v["state"] for m in listed["models"] for v in m["versions"] if v["loads"]]
        if not {None, "LOADING"} & set(states):
            return listed
        time.sleep(0.5)
    raise AssertionError(f"still loading after 30 s: {listed}")


def test_what_a_server_serves_is_shown_named_and_kept(served: EmbeddedServer) -> None:
    listed = listed_when_settled(served)
    models = {m["name"]: m for m in listed["models"]}
    assert listed["server"] == served.http_url
    assert (models["plus"]["serves"], models["broken"]["serves"]) == (5, None)
    assert {v["version"]: v["state"] for v in models["plus"]["versions"]}[5] == "READY"
    assert "no weights" in models["broken"]["versions"][0]["reason"]

    over_grpc = run(show, served, "plus", "--server", served.grpc_url)
    assert (over_grpc["server"], over_grpc["serves"]) == (served.grpc_url, 5)

    run(alias, served, "plus@stable", "5")
    assert run(alias, served)["aliases"][0]["state"] == "READY"

    with Asking(served.http_url, "plus") as asking:
        before = len(asking.answers)
        done = run(prune, served, "plus", "--keep", "1")
        time.sleep(2.5)  # the server looks at the folder every second
        assert [r["version"] for r in done["models"][0]["removed"]] == [1, 2, 3]
    assert asking.failures == []
    assert len(asking.answers) > before
    assert set(asking.answers) == {5.0}

    after = run(list_models, served)
    plus = next(m for m in after["models"] if m["name"] == "plus")
    assert [v["version"] for v in plus["versions"]] == [4, 5]
    assert plus["serves"] == 5
