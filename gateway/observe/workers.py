"""Metrics that several workers share: each writes files of its own in one folder, and a scrape reads them all.

prometheus_client decides on its import whether it counts in files, by the environment; so the folder is made, and
named, before the workers start.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """While it lasts, worker processes that are started count together. One worker alone needs no files."""
    if workers < 2 or FOLDER_VARIABLE in os.environ:
        yield
        return
    folder = tempfile.mkdtemp(prefix="conch-gateway-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


def all_workers() -> CollectorRegistry | None:
    """A registry of what all workers have counted; None where each counts for itself."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return None
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def _forget_the_dead(folder: Path) -> None:
    """Drop what gauges say of workers that are gone: their requests are not in flight any more."""
    from prometheus_client.multiprocess import mark_process_dead

    for path in folder.glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass
