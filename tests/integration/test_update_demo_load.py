"""The load that updates are tried under: it counts what is right, and sees what is wrong."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.load.checked import clean, pipeline_load, single_load, write_pipeline, write_single

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    write_single(triton.repository, "load_single", 1)
    triton.load("load_single")
    write_pipeline(triton.repository, "load_pipe", 1)
    triton.load("load_pipe")
    return triton


def test_a_new_version_is_seen_by_every_client(server: Any) -> None:
    with single_load(server, "load_single") as load:
        assert load.wait_for("1")
        write_single(server.repository, "load_single", 2, version=2)
        with load.update():
            server.load("load_single")
            assert load.wait_for("2")
    report = clean(load)
    assert report.versions == ("1", "2")
    assert {report.turns(client) for client in range(4)} == {("1", "2")}
    assert report.quantile_ms(0.99, during_updates=True) > 0
    assert report.quantile_ms(0.99, during_updates=False) > 0
    assert sum(report.counts.values()) == report.requests
    assert not [t for t in threading.enumerate() if t.name.startswith("load-")]


def test_parts_of_two_versions_are_seen(server: Any) -> None:
    with pipeline_load(server, "load_pipe") as load:
        assert load.wait_for("1")
        # The same width as version 1, so it fits; only the postprocessing is new.
        stage = server.repository.parent / "other"
        write_pipeline(stage, "load_pipe", 3, version=2)
        part = "load_pipe_postprocess"
        (stage / part / "2").rename(server.repository / part / "2")
        server.load(part)
        load.wait_for("3", timeout_s=1)
    report = load.report()
    assert report.mixed == report.failed > 0
    assert "parts of versions 1, 1, 3" in next(iter(report.failures))


def test_failures_are_counted_with_their_messages(server: Any) -> None:
    with single_load(server, "load_nowhere", clients_per_url=1) as load:
        pass
    report = load.report()
    assert report.failed == report.requests >= 2
    assert "load_nowhere" in str(report)
    assert report.versions == ()


def test_it_ends_by_itself(server: Any) -> None:
    load = single_load(server, "load_single", clients_per_url=1, longest_s=0.3)
    load.start()
    for thread in load._threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in load._threads)
    load.stop()
