"""Turn traces on for one model of a running server, for a while, and read what it wrote.

Where the server was started without a trace file, or writes it on another machine, there are none: the file's place
cannot be changed while it runs (tritonserver 2.51).

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_trace.md
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from conch.errors import ConchError
from perf.explain.trace_file import Trace, read
from server import http_api

# Triton hands the traces to its buffer when the setting changes, and the file has them a moment later.
SETTLE_S = 0.3


def trace_path(url: str, headers: Mapping[str, str]) -> tuple[Path | None, str]:
    """Where a server's traces can be read, and otherwise None and why not."""
    try:
        settings = http_api.ask(url, "/v2/trace/setting", headers)
    except ConchError as error:
        return None, f"its trace API does not answer: {error.what}"
    if settings.get("trace_mode") != "triton":
        return None, "its traces go elsewhere (OpenTelemetry)"
    path = Path(settings.get("trace_file", ""))
    if not path.name:
        return None, "it was started without --trace-config triton,file=PATH"
    if not path.parent.is_dir():
        return None, f"it writes them to {path}, which is not on this machine"
    return path, ""


@contextmanager
def traced(url: str, model: str, headers: Mapping[str, str], one_in: int) -> Iterator[None]:
    """Trace one request in ``one_in`` to a model in the block; then it is as it was before. Raises: ServerError."""
    place = f"/v2/models/{model}/trace/setting"
    before = http_api.ask(url, place, headers)
    wanted = {"trace_level": ["TIMESTAMPS"], "trace_rate": str(one_in), "trace_count": "-1"}
    http_api.ask(url, place, headers, body=wanted)
    try:
        yield
    finally:
        http_api.ask(url, place, headers, body={key: before[key] for key in wanted})
        time.sleep(SETTLE_S)


def traces_of(path: Path, request_ids: frozenset[str]) -> tuple[Trace, ...]:
    """The traces of these requests, members' too."""
    return tuple(trace for trace in read(path) if trace.request_id in request_ids)
