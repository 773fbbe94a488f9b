"""The limit as a target: processes of bare_onnx.py side by side, one a core, and no server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from conch.repository import Repository
from conch.tensor_spec import Array
from perf.contenders.entries import Target
from perf.contenders.line_process import LineProcess
from perf.contenders.workloads import Workload, handler_settings, in_json
from perf.load_loop import LoadResult


@contextmanager
def bare(workload: Workload, repository: Repository) -> Iterator[list[Target]]:
    """A process a core; with fewer requests in flight than cores, as many as these."""
    payloads = [in_json(payload) for payload in workload.payloads()]
    settings = handler_settings(workload, repository)
    workers: list[LineProcess] = []
    try:
        workers += [LineProcess("perf.contenders.bare_onnx", settings) for _ in range(os.cpu_count() or 1)]
        for worker in workers:
            worker.tell({"payloads": payloads})

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
            worker.end()


def summary(connections: int, latencies_s: list[list[float]], duration_s: float) -> LoadResult:
    """What the processes did together."""
    together = np.array([each for own in latencies_s for each in own]) * 1000
    p50, p99 = np.percentile(together, [50, 99]) if len(together) else (float("nan"), float("nan"))
    return LoadResult(connections, len(together), 0, len(together) / duration_s, float(p50), float(p99))
