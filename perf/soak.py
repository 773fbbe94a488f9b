"""Does the server's memory stay where it is? `python -m perf.soak NAME --minutes 10`, and `--updates 100`.

Under full load for minutes, what tritonserver and the models' processes hold is sampled each second; with --updates, a
tiny model gets version after version through the same switch as `conch repo publish`, and what is held after each is
sampled. Slopes come with two standard errors; growth beyond that fails the command, and so do processes, shared memory
or open files that stay behind.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conch.terminal import console, print_json, print_table
from perf.server_usage import Growth, Usage, growth, usage

if TYPE_CHECKING:
    from server.embedded import EmbeddedServer
    from server.rollout.live import Live

SAMPLE_EVERY_S = 1.0
# Allocators fill their arenas first; what is held then is no growth.
SETTLE_SHARE = 0.2
# A slope under these is no leak that anybody meets, however sure it is: a day adds less than 24 MiB, a thousand updates
# less than 50.
LEAST_MIB_PER_HOUR = 1.0
LEAST_MIB_PER_UPDATE = 0.05
TINY = "tiny"
TINY_KINDS = ("single", "pipeline")


@dataclass(frozen=True)
class Trend:
    """How what a server holds grew, per ``unit``, and what else stayed behind between the first and the last sample."""

    unit: str
    server_mib: Growth
    models_mib: Growth
    regions_mib: Growth
    first: Usage
    last: Usage

    def faults(self, least_mib: float, *, descriptors_may_differ_by: int = 8) -> list[str]:
        """What is not flat, in words; empty when all is."""
        found = [
            f"{what} grows by {slope} MiB per {self.unit}"
            for what, slope in (
                ("tritonserver", self.server_mib),
                ("the models' processes", self.models_mib),
                ("shared memory", self.regions_mib),
            )
            if slope.shows and slope.slope > least_mib
        ]
        if self.last.processes > self.first.processes:
            found.append(f"{self.last.processes} processes of models, {self.first.processes} at first")
        if self.last.regions > self.first.regions:
            found.append(f"{self.last.regions} regions in /dev/shm, {self.first.regions} at first")
        if self.last.descriptors > self.first.descriptors + descriptors_may_differ_by:
            found.append(f"{self.last.descriptors} open files, {self.first.descriptors} at first")
        return found


def trend(samples: Sequence[Usage], xs: Sequence[float], unit: str) -> Trend:
    """The trend of samples over x, without the first part, in which everything settles."""
    skip = int(len(samples) * SETTLE_SHARE)
    kept, x = samples[skip:], xs[skip:]
    return Trend(
        unit=unit,
        server_mib=growth(x, [s.server_mib for s in kept]),
        models_mib=growth(x, [s.models_mib for s in kept]),
        regions_mib=growth(x, [s.regions_mib for s in kept]),
        first=kept[0],
        last=kept[-1],
    )


def sample_while(server: EmbeddedServer, busy: Callable[[], bool], every_s: float = SAMPLE_EVERY_S) -> list[Usage]:
    """Samples for as long as ``busy``."""
    samples = []
    while busy():
        samples.append(now(server))
        time.sleep(every_s)
    return samples


def now(server: EmbeddedServer) -> Usage:
    """What a server holds now."""
    return usage(server.pid, server.shared_memory(), time.monotonic())


def settled(server: EmbeddedServer, processes: int, patience_s: float = 10.0) -> Usage:
    """What a server holds once no more than ``processes`` of models run, or patience is over."""
    deadline = time.monotonic() + patience_s
    while (found := now(server)).processes > processes and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def update(server: EmbeddedServer, live: Live, root: Path, kind: str, count: int) -> list[Usage]:
    """Publish ``count`` versions of a tiny model, and sample after each, when the version before has gone."""
    from conch.model_config import read_config
    from conch.repository import Repository
    from server import tiny_models
    from server.rollout.switch import publish

    write = tiny_models.write_single if kind == "single" else tiny_models.write_pipeline
    repository = Repository(root)
    processes = now(server).processes
    samples = []
    for k in range(2, count + 2):
        with repository.stage() as stage:
            made = Repository(stage.path.parent / "made")
            write(made.root, TINY, k)
            for model in sorted(made.model_names(), key=lambda n: (n == TINY, n)):
                folder = stage.add_model(model, read_config(made.model_path(model) / "config.pbtxt"))
                shutil.copytree(made.version_path(model, 1), folder, dirs_exist_ok=True)
            publish(stage, live, verify=lambda name, version: None)
        samples.append(settled(server, processes))
    return samples


def soak(name: str, repository: Path, protocol: str, in_flight: int, minutes: float) -> tuple[Trend, float]:
    """Full load on a model in a server of its own; the trend per hour, and the requests/s. Raises: ConchError."""
    from perf.load_loop import LoadResult
    from perf.overload import measure_over, served

    results: list[LoadResult] = []
    with served(name, repository) as (server, urls, requests):
        measure = measure_over(protocol, urls[protocol], name, requests, minutes * 60)
        load = threading.Thread(target=lambda: results.append(measure(in_flight)), daemon=True)
        load.start()
        samples = sample_while(server, load.is_alive)
    return trend(samples, [s.at_s / 3600 for s in samples], "hour"), results[0].requests_per_second if results else 0.0


@click.command()
@click.argument("name", default=TINY)
@click.option("--repository", type=click.Path(path_type=Path), default="model_repository", show_default=True)
@click.option("--minutes", default=10.0, show_default=True, help="How long the load lasts; 0: no load.")
@click.option("--in-flight", default=32, show_default=True, help="Requests in flight.")
@click.option("--protocol", type=click.Choice(["http", "grpc"]), default="http", show_default=True)
@click.option("--updates", default=0, show_default=True, help="Versions of a tiny model and pipeline to publish.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    name: str, repository: Path, minutes: float, in_flight: int, protocol: str, updates: int, as_json: bool
) -> None:
    """Load NAME for minutes, and update a tiny model, in servers of their own; without a NAME, a tiny model.

    \b
    Examples:
      python -m perf.soak embeddings --minutes 10
      python -m perf.soak --minutes 0 --updates 100
    """
    trends: dict[str, tuple[Trend, float]] = {}
    if minutes:
        found, rate = soak(name, repository, protocol, in_flight, minutes)
        trends[f"{name}, {in_flight} in flight over {protocol}, {rate:.0f} requests/s"] = found, LEAST_MIB_PER_HOUR
    if updates:
        for kind in TINY_KINDS:
            trends[f"{updates} updates of a tiny {kind}"] = updated(kind, updates), LEAST_MIB_PER_UPDATE
    rows = [
        [what, t.unit, str(t.server_mib), str(t.models_mib), str(t.regions_mib), t.last.processes, t.last.descriptors]
        for what, (t, _) in trends.items()
    ]
    columns = ["what", "per", "server MiB", "models MiB", "shared MiB", "processes", "open files"]
    print_table(columns, rows, title="growth, with two standard errors")
    if as_json:
        print_json({what: asdict(t) for what, (t, _) in trends.items()})
    faults = [f"{what}: {fault}" for what, (t, least) in trends.items() for fault in t.faults(least)]
    for fault in faults:
        console.print(fault, markup=False)
    if faults:
        raise SystemExit(1)


def updated(kind: str, count: int, log: Path | None = None) -> Trend:
    """Updates of a tiny model in a server of its own, which logs into ``log``; the trend per update."""
    from server import tiny_models
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions
    from server.rollout.live import connect

    with tempfile.TemporaryDirectory(prefix="conch-soak-") as scratch:
        root = Path(scratch) / "repository"
        (tiny_models.write_single if kind == "single" else tiny_models.write_pipeline)(root, TINY, 1)
        options = ServerOptions(
            control="explicit", load_models=(TINY,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
        )
        with EmbeddedServer(root, options, log_path=log) as server, connect(server.grpc_url) as live:
            samples = update(server, live, root, kind, count)
    return trend(samples, [float(i) for i in range(len(samples))], "update")


if __name__ == "__main__":
    main()
