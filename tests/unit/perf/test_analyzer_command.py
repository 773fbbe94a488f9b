from __future__ import annotations

from pathlib import Path

import pytest

from conch.errors import ConchError
from perf.analyzer.command import arguments
from perf.points import Load

INPUTS, CSV = Path("in.json"), Path("out.csv")
GRPC, HTTP = "grpc://127.0.0.1:8001", "http://127.0.0.1:8000"


def pairs(load: Load, url: str) -> dict[str, str]:
    """Options by name; a flag's value is whatever follows, or nothing."""
    found = arguments(load, url, INPUTS, CSV)
    return {name: following for name, following in zip(found, [*found[1:], ""], strict=True) if name.startswith("-")}


def test_a_closed_loop() -> None:
    load = Load("spam", "3", concurrency=8, batch_size=4, window_ms=500, percentile=95, shared_memory="system")
    said = pairs(load, GRPC)
    due = {
        "-m": "spam",
        "-x": "3",
        "-u": "127.0.0.1:8001",
        "-i": "grpc",
        "-b": "4",
        "--concurrency-range": "8",
        "--measurement-interval": "500",
        "--percentile": "95",
        "--shared-memory": "system",
        "--input-data": "in.json",
        "-f": "out.csv",
    }
    assert due.items() <= said.items()
    assert not {"--request-rate-range", "--async", "--streaming"} & said.keys()


def test_an_open_loop_does_not_wait_for_answers() -> None:
    said = pairs(Load("spam", protocol="http", request_rate_per_second=12.5, arrivals="poisson"), HTTP)
    assert said["--request-rate-range"] == "12.5"
    assert said["--request-distribution"] == "poisson"
    assert said["-u"] == "127.0.0.1:8000"
    assert "--async" in said
    assert "--concurrency-range" not in said
    assert "-x" not in said


@pytest.mark.parametrize(("concurrency", "streaming", "due"), [(64, False, False), (65, False, True), (1, True, True)])
def test_threads_are_spared_where_many_wait(concurrency: int, streaming: bool, due: bool) -> None:
    said = pairs(Load("spam", concurrency=concurrency, streaming=streaming), GRPC)
    assert ("--async" in said) == due
    assert ("--streaming" in said) == streaming


def test_encrypted_addresses() -> None:
    assert pairs(Load("spam", protocol="http", concurrency=1), "https://host:443")["-u"] == "https://host:443"
    assert pairs(Load("spam", concurrency=1), "grpcs://host:443")["--ssl-grpc-use-ssl"] == "true"


@pytest.mark.parametrize(("protocol", "url"), [("grpc", HTTP), ("http", GRPC)])
def test_an_address_of_the_other_protocol_is_refused(protocol: str, url: str) -> None:
    with pytest.raises(ConchError, match="address"):
        arguments(Load("spam", protocol=protocol, concurrency=1), url, INPUTS, CSV)
