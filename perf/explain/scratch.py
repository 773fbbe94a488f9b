"""A server of our own to explain a model on: the repository's files as they are, every trace written to a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conch.model_config import CONFIG_FILE, render
from conch.repository import Repository
from server import binary
from server.embedded import EmbeddedServer
from server.options import LocalCache, ServerOptions
from server.rollout.scratch_repository import lay_out


@dataclass(frozen=True)
class Traced:
    """A server, and what differs from how the repository is served."""

    server: EmbeddedServer
    notes: tuple[str, ...]


@contextmanager
def traced_server(repository: Repository, name: str) -> Iterator[Traced]:
    """Serve a model with its members, as their configs say, with tracing ready and off.

    Where a config enables the response cache, the server has one. Raises: ConchError.
    """
    repository.model_path(name)
    gpu = binary.has_gpu()
    with tempfile.TemporaryDirectory(prefix="conch-explain-") as folder:
        laid = lay_out(Path(folder) / "models", {}, {}, repository, 0, also=[name], gpu=gpu)
        cached = [model for model in laid.configs if repository.config(model).response_cache.enable]
        for model in cached:  # lay_out takes the cache away, and here it is part of the question
            laid.configs[model].response_cache.enable = True
            (laid.root / model / CONFIG_FILE).write_text(render(laid.configs[model]), encoding="utf-8")
        options = ServerOptions(
            control="explicit",
            load_models=(name,),
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            exit_timeout_s=1,
            cache=LocalCache() if cached else None,
            extra_flags=trace_flags(Path(folder) / f"traces-{os.getpid()}.json"),
        )
        with EmbeddedServer(laid.root, options) as server:
            yield Traced(server, laid.notes)


def trace_flags(path: Path) -> tuple[str, ...]:
    """Tritonserver's flags for traces into a file, off until the trace API turns them on."""
    return (
        "--trace-config=mode=triton",
        f"--trace-config=triton,file={path}",
        "--trace-config=level=OFF",
    )
