"""The limit as a target: processes of bare_onnx.py side by side, one a core, and no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from conch.repository import Repository
from conch.tensor_spec import Array
from perf.contenders.entries import Target
from perf.contenders.processes import ROOT
from perf.contenders.workloads import Workload, handler_settings, in_json
from perf.load_loop import LoadResult


class _Worker:
    """One process, idle until it is told to measure. It ends when its standard input does."""

    def __init__(self, settings: Mapping[str, Any], payloads: list[Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CONCH_BENCH": json.dumps(settings)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perf.contenders.bare_onnx"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for us, who then end it
        )
        self.tell({"payloads": payloads})

    def tell(self, command: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"a process of the bare limit ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def bare(workload: Workload, repository: Repository) -> Iterator[list[Target]]:
    """A process a core; with fewer requests in flight than cores, as many as these."""
    payloads = [in_json(payload) for payload in workload.payloads()]
    settings = handler_settings(workload, repository)
    workers: list[_Worker] = []
    try:
        workers += [_Worker(settings, payloads) for _ in range(os.cpu_count() or 1)]

        def ask(index: int) -> dict[str, Array]:
            workers[0].tell({"answer": index})
            return {name: np.array(value) for name, value in workers[0].hear().items()}

        def load(connections: int, duration_s: float, warmup_s: float) -> LoadResult:
            chosen = workers[: min(connections, len(workers))]
            for number, worker in enumerate(chosen):
                first = number * len(payloads) // len(chosen)
                worker.tell({"duration_s": duration_s, "warmup_s": warmup_s, "first": first})
            return summary(connections, [worker.hear()["latencies_s"] for worker in chosen], duration_s)

        for worker in workers:  # until each has loaded the graph
            worker.tell({"answer": 0})
            worker.hear()
        name = f"bare ONNX Runtime, {len(workers)} processes"
        yield [Target(name, ask, load, tuple(worker.process.pid for worker in workers))]
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


def summary(connections: int, latencies_s: list[list[float]], duration_s: float) -> LoadResult:
    """What the processes did together."""
    together = np.array([each for own in latencies_s for each in own]) * 1000
    p50, p99 = np.percentile(together, [50, 99]) if len(together) else (float("nan"), float("nan"))
    return LoadResult(connections, len(together), 0, len(together) / duration_s, float(p50), float(p99))
