"""`conch perf tune`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from perf.tune.search import Trial


@click.command()
@click.argument("name")
@click.option("--p99-ms", type=click.FloatRange(0, min_open=True), help="The p99 must not be above this.")
@click.option(
    "--objective",
    type=click.Choice(["throughput", "latency"]),
    default="throughput",
    show_default=True,
    help="What is to get better; latency is the p99.",
)
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="How long it may take."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="Requests in flight.  [default: 32, for latency 4; with --p99-ms as many of them as keep it]",
)
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, exists=True),
    help="CSV, JSON, JSON lines or a folder of images to send.  [default: ours, or its golden requests]",
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default="model_repository",
    help="Folder of models.",
)
@click.option(
    "--server", metavar="URL", help="grpc:// address.  [default: the `conch serve` of this folder, if one runs]"
)
@click.option("--keep-version", is_flag=True, help="Leave out versions of the same source in another precision.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("perf/results/tune"),
    show_default="perf/results/tune",
    help="Folder for the report.",
)
@click.option("--apply/--dry-run", "apply", default=True, help="Write the best settings, or only say them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def tune(
    name: str,
    p99_ms: float | None,
    objective: str,
    minutes: float,
    concurrency: int | None,
    protocol: str,
    inputs: Path | None,
    repository: Path,
    server: str | None,
    keep_version: bool,
    results: Path,
    apply: bool,
    as_json: bool,
) -> None:
    """Search for the best settings of a model or pipeline, and write them back.

    Instances, threads, batching, padding, and versions in other precisions are tried on a scratch server with real
    inputs, each in turns with the best so far. What does not pay stays as it is. At the end both are measured again,
    and the config.pbtxt files change in one safe step, on a running server too. Ctrl-C leaves all as it was. Stop what
    else runs on the machine: it takes part in what is measured.

    \b
    Examples:
      conch perf tune spam
      conch perf tune embeddings --p99-ms 50 --minutes 10
      conch perf tune churn --objective latency --concurrency 1
      conch perf tune spam --dry-run --json
    """
    import math

    from conch.terminal import console, print_json, progress
    from perf.tune import outcome as outcomes
    from perf.tune.search import Goal
    from perf.tune.session import Options
    from perf.tune.session import tune as run

    goal = Goal(objective, p99_ms)
    options = Options(goal, minutes, concurrency, protocol, apply, server, inputs, keep_version)
    with progress() as bars:
        task = bars.add_task(f"{name}: starting a scratch server", total=None)

        def told(trial: Trial) -> None:
            gain = "refused" if trial.refused else "limit" if math.isinf(trial.gain) else f"{trial.gain:.2f} times"
            bars.update(task, description=f"{name}: {trial.knob} {gain}{', kept' if trial.kept else ''}")

        found = run(repository, name, options, told)
    path = outcomes.save(found, results)
    if as_json:
        print_json(outcomes.document(found))
    else:
        outcomes.show(found)
        if not apply:
            console.print("nothing was written: --dry-run")
    console.print(f"report: {path}", markup=False)
