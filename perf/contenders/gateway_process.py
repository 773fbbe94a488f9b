"""A gateway of ours in a process of its own, before a Triton that runs."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from perf.contenders.processes import running
from server import ports


@contextmanager
def gateway(grpc_url: str, http_url: str, **settings: Any) -> Iterator[tuple[str, int]]:
    """Its URL and pid. ``settings`` are keys of its file; the rest is as it comes. Raises: Unavailable."""
    (port,) = ports.choose("127.0.0.1", 1)
    url = f"http://127.0.0.1:{port}"
    document = {"servers": [{"grpc": grpc_url, "http": http_url}], "port": port, **settings}

    def command(scratch: Path) -> list[str]:
        file = scratch / "gateway.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return [sys.executable, "-m", "conch", "gateway", "--config", str(file)]

    def ready() -> None:
        urllib.request.urlopen(f"{url}/ready", timeout=5).close()

    with running(command, {}, ready) as pid:
        yield url, pid
