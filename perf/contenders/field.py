"""Who takes part, and how each is run at its best. Where two ways compete, both are variants, and the faster one runs.

FastAPI's defaults and its tuned twin are contenders of their own: the graph level that our export chose for a file is
something that its users would have to find first.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from conch.repository import Repository
from perf.contenders.bare import bare
from perf.contenders.entries import Entry, Target, Variant
from perf.contenders.environments import environment, version
from perf.contenders.prepare import checkpoint
from perf.contenders.processes import post, running
from perf.contenders.triton import serving
from perf.contenders.workloads import DEFAULT_LEVEL, Workload, body, handler_settings
from perf.http_load import run_load
from server import ports

CORES = os.cpu_count() or 1
KEYS = ("framework", "fastapi", "litserve", "bentoml", "ray", "bare", "conch")
PACKAGES = {"litserve": ("litserve>=0.2.10",), "bentoml": ("bentoml>=1.4",), "ray": ("ray[serve]>=2.40",)}
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error")

# No usage statistics; and Ray's own switch for throughput.
BENTOML_ENVIRONMENT = {"BENTOML_DO_NOT_TRACK": "True"}
RAY_ENVIRONMENT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
}


@contextmanager
def http_server(
    name: str,
    workload: Workload,
    settings: Mapping[str, Any],
    command: Callable[[int], Sequence[str]],
    *,
    path: str = "/infer",
    picture_in_json: bool = False,
    wrap: str = "",
    extra: Mapping[str, str] | None = None,
) -> Iterator[list[Target]]:
    """One of the others: ``command`` is given the port. ``wrap`` is the name that a JSON body is put under.

    A value of the answer is a number, a text or a list. Raises: Unavailable when it does not start.
    """
    (port,) = ports.choose("127.0.0.1", 1)
    url = f"http://127.0.0.1:{port}{path}"
    made = [body(payload, picture_in_json=picture_in_json) for payload in workload.payloads()]
    headers = made[0][1]
    bodies = [b'{"%s": %s}' % (wrap.encode(), data) if wrap else data for data, _ in made]
    if wrap and wrap.endswith("[]"):
        bodies = [b'{"%s": [%s]}' % (wrap[:-2].encode(), data) for data, _ in made]

    def ask(index: int) -> dict[str, Any]:
        answer = json.loads(post(url, bodies[index], headers)[0])
        answer = answer[0] if isinstance(answer, list) else answer
        return {key: np.array(value) for key, value in answer.items()}

    with running(lambda _: command(port), settings, lambda: ask(0), extra) as pid:
        yield [
            Target(
                name,
                ask,
                lambda connections, duration_s, warmup_s: run_load(
                    url, bodies, connections, duration_s, warmup_s, headers
                ),
                (pid,),
            )
        ]


def field(workload: Workload, repository: Repository, environments: Path, keys: Sequence[str]) -> list[Entry]:
    """The contenders with these keys. Environments are made when a contender starts, not here."""
    settings = handler_settings(workload, repository)
    makers: dict[str, Callable[[], list[Entry]]] = {
        "framework": lambda: [_framework(workload, repository, settings)],
        "fastapi": lambda: _fastapi(workload, settings),
        "litserve": lambda: [_litserve(workload, settings, environments)],
        "bentoml": lambda: [_bentoml(workload, settings, environments)],
        "ray": lambda: [_ray(workload, settings, environments)],
        "bare": lambda: [_bare(workload, repository)] if workload.name == "text" else [],
        "conch": lambda: [_conch(workload, repository)],
    }
    return [entry for key in KEYS if key in keys for entry in makers[key]()]


def _uvicorn(module: str, workers: int) -> Callable[[int], list[str]]:
    start = [sys.executable, "-m", "uvicorn", f"perf.contenders.{module}:app", *UVICORN, "--workers", str(workers)]
    return lambda port: [*start, "--port", str(port)]


def _fastapi(workload: Workload, settings: Mapping[str, Any]) -> list[Entry]:
    levels = {"FastAPI + ONNX Runtime": DEFAULT_LEVEL}
    if settings["graph_level"] != DEFAULT_LEVEL:
        levels = {
            "FastAPI + ONNX Runtime, defaults": DEFAULT_LEVEL,
            "FastAPI + ONNX Runtime, tuned": settings["graph_level"],
        }
    return [
        Entry(
            key="fastapi",
            name=name,
            role="other",
            variants=(
                Variant(
                    f"{CORES} workers",
                    functools.partial(
                        http_server,
                        name,
                        workload,
                        {**settings, "graph_level": level},
                        _uvicorn("fastapi_onnx", CORES),
                    ),
                ),
            ),
            version=functools.partial(importlib.metadata.version, "fastapi"),
        )
        for name, level in levels.items()
    ]


def _framework(workload: Workload, repository: Repository, settings: Mapping[str, Any]) -> Entry:
    name = f"FastAPI calling {'scikit-learn' if workload.name == 'tabular' else 'torch'}"
    own = {**settings, "checkpoint": str(checkpoint(workload, repository))}
    forms = {f"{CORES} workers of 1 thread": (CORES, 1), f"1 worker of {CORES} threads": (1, CORES)}
    return Entry(
        key="framework",
        name=name,
        role="framework",
        variants=tuple(
            Variant(
                label,
                functools.partial(
                    http_server, name, workload, {**own, "threads": threads}, _uvicorn("fastapi_framework", workers)
                ),
            )
            for label, (workers, threads) in forms.items()
        ),
        resident=False,
        exact=workload.name != "text",  # fp32 beside int8
        version=functools.partial(
            importlib.metadata.version, "scikit-learn" if workload.name == "tabular" else "torch"
        ),
    )


def _bare(workload: Workload, repository: Repository) -> Entry:
    start = functools.partial(bare, workload, repository)
    return Entry(
        "bare",
        "bare ONNX Runtime",
        "limit",
        (Variant("a process a core", start),),
        version=functools.partial(importlib.metadata.version, "onnxruntime"),
    )


def _conch(workload: Workload, repository: Repository) -> Entry:
    start = functools.partial(serving, workload, repository)
    return Entry("conch", "conch", "ours", (Variant("as exported", start),), version=lambda: "on Triton 2.51.0")


def _installed(key: str, environments: Path) -> Callable[[], str]:
    package = PACKAGES[key][0].partition(">")[0].partition("[")[0]
    return lambda: version(environments / key / "bin" / "python", package)


def _litserve(workload: Workload, settings: Mapping[str, Any], environments: Path) -> Entry:
    def start(batching: bool, fast_queue: bool) -> Any:
        python = environment("litserve", PACKAGES["litserve"], environments)
        return http_server(
            "LitServe",
            workload,
            {**settings, "batching": batching, "fast_queue": fast_queue},
            lambda port: [str(python), "-m", "perf.contenders.litserve_server", str(port)],
            path="/predict",
            picture_in_json=True,
        )

    variants = (
        Variant("batching off", functools.partial(start, False, False)),
        Variant("batching off, ZeroMQ", functools.partial(start, False, True)),
        Variant("batching on", functools.partial(start, True, False)),
    )
    return Entry("litserve", "LitServe", "other", variants, version=_installed("litserve", environments))


def _bentoml(workload: Workload, settings: Mapping[str, Any], environments: Path) -> Entry:
    def start(batching: bool) -> Any:
        python = environment("bentoml", PACKAGES["bentoml"], environments)
        return http_server(
            "BentoML",
            workload,
            {**settings, "batching": batching},
            lambda port: [
                *(str(python.with_name("bentoml")), "serve", "perf.contenders.bentoml_server:Served"),
                *("--host", "127.0.0.1", "--port", str(port), "--quiet"),
            ],
            picture_in_json=True,
            wrap="payload[]" if batching else "payload",
            extra=BENTOML_ENVIRONMENT,
        )

    variants = tuple(
        Variant(f"batching {'on' if batching else 'off'}", functools.partial(start, batching))
        for batching in (False, True)
    )
    return Entry("bentoml", "BentoML", "other", variants, version=_installed("bentoml", environments))


def _ray(workload: Workload, settings: Mapping[str, Any], environments: Path) -> Entry:
    def start(batching: bool) -> Any:
        python = environment("ray", PACKAGES["ray"], environments)
        return http_server(
            "Ray Serve",
            workload,
            {**settings, "batching": batching},
            lambda port: [str(python), "-m", "perf.contenders.ray_server", str(port)],
            extra=RAY_ENVIRONMENT,
        )

    variants = tuple(
        Variant(f"batching {'on' if batching else 'off'}", functools.partial(start, batching))
        for batching in (False, True)
    )
    return Entry("ray", "Ray Serve", "other", variants, version=_installed("ray", environments), resident=False)
