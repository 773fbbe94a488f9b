"""`conch perf run`. What it needs is imported when it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from perf.points import Point, RunResult
    from perf.run.session import OnLine, Step
    from perf.run.settings import RunSettings

RESULTS = Path("perf/results/run")
_PATH = click.Path(path_type=Path)
# What the command line may say in place of the configuration.
_SETTINGS = (
    "protocol",
    "arrivals",
    "batch_size",
    "shared_memory",
    "streaming",
    "window_ms",
    "stability_percent",
    "max_trials",
    "percentile",
    "repeat",
)


class Loads(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.3
    """Numbers above zero: `1,8,32`, or `START:END:STEP`."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Raises: click.BadParameter."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._expand(str(value)))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) <= 0:
            self.fail(f"{value!r} is neither a list above zero, as 1,8,32, nor START:END:STEP, as 8:64:8", param, ctx)
        return numbers

    def _expand(self, text: str) -> Iterator[Any]:
        if ":" not in text:
            yield from (self.kind(word) for word in text.split(","))
            return
        start, end, *more = (self.kind(word) for word in text.split(":"))
        (step,) = more or [1]
        if step <= 0 or (end - start) / step > 1000:
            raise ValueError(text)
        yield from (start + index * step for index in range(int((end - start) / step) + 1))


@click.command()
@click.argument("name")
@click.option(
    "--config",
    "config",
    default="smoke",
    show_default=True,
    metavar="NAME|FILE",
    help="smoke, latency, throughput, soak or spike, or a YAML file; the options below replace what it says.",
)
@click.option("--concurrency", type=Loads(int), help="Requests in flight: 1,8,32 or START:END:STEP.")
@click.option("--request-rate", type=Loads(float), help="Requests a second, whether or not the server keeps up.")
@click.option("--arrivals", type=click.Choice(["constant", "poisson"]), help="How a request rate is spread over time.")
@click.option("--protocol", type=click.Choice(["grpc", "http"]), help="[default: grpc, or the URL's]")
@click.option("--batch-size", type=click.IntRange(1), help="Rows a request.")
@click.option("--shared-memory", type=click.Choice(["none", "system"]), help="How tensors travel on one machine.")
@click.option("--streaming/--no-streaming", default=None, help="Over a gRPC stream, as for models that answer often.")
@click.option("--window-ms", type=click.IntRange(1), help="Length of a measurement window.")
@click.option("--stability-percent", type=click.FloatRange(0, min_open=True), help="How far three windows may differ.")
@click.option("--max-trials", type=click.IntRange(1), help="Windows at most, until three in a row agree.")
@click.option("--percentile", type=click.IntRange(1, 99), help="Whose latency has to be steady.")
@click.option("--repeat", type=click.IntRange(1), help="How often all loads are measured.")
@click.option("--inputs", type=_PATH, metavar="FILE", help="CSV, JSON, JSON lines, or a folder of images.")
@click.option("--model-version", type=click.IntRange(1), help="Version to measure.  [default: the one that serves]")
@click.option("--url", envvar="CONCH_URL", help="The server.  [default: the one that serves the repository]")
@click.option("--serve", is_flag=True, help="Start a server for this run, and stop it afterwards.")
@click.option("--repository", type=_PATH, default=Path("model_repository"), show_default=True, help="Folder of models.")
@click.option("--results", type=_PATH, default=RESULTS, show_default=True, help="Folder that results are kept in.")
@click.option("--json", "as_json", is_flag=True, help="Print the result on stdout as JSON.")
def run(
    name: str,
    config: str,
    concurrency: tuple[int, ...] | None,
    request_rate: tuple[float, ...] | None,
    inputs: Path | None,
    model_version: int | None,
    url: str | None,
    serve: bool,
    repository: Path,
    results: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure the model NAME with Triton's perf_analyzer, on real inputs.

    Inputs are --inputs, or perf/inputs/NAME.json, or the golden requests in the manifest of the version. Points whose
    windows do not agree are kept, and marked unstable. Ctrl-C keeps what was measured.

    \b
    Examples:
      conch perf run spam
      conch perf run spam --serve
      conch perf run spam --concurrency 1,8,32 --protocol http
      conch perf run spam --request-rate 200 --arrivals poisson
      conch perf run churn --batch-size 16 --shared-memory system
      conch perf run embeddings --config soak
      conch perf run mine --inputs customers.csv --url grpc://127.0.0.1:8001
    """
    from conch.terminal import console, print_json
    from perf.run import settings as named

    if concurrency and request_rate:
        raise click.UsageError("--concurrency and --request-rate exclude each other: closed loop or open loop")
    if url is not None and serve:
        raise click.UsageError("--serve starts a server, and --url names another: choose one")
    chosen = named.read(config)
    if url is not None and asked["protocol"] is None:
        asked["protocol"] = "grpc" if url.startswith("grpc") else "http"
    chosen = _replaced(chosen, concurrency, request_rate, {key: asked[key] for key in _SETTINGS})
    loads = chosen.loads(name, "" if model_version is None else str(model_version))
    found, path, stopped = _measure(name, chosen, loads, inputs, url, serve, repository, results)
    _show(found)
    console.print(f"\nresult: {path}\nperf_analyzer's own CSV: {path.with_suffix('')}/", markup=False)
    if as_json:
        from perf.points import to_document

        print_json({"path": str(path), **to_document(found)})
    if stopped:
        click.get_current_context().exit(130)
    if len(found.points) < len(loads):
        click.get_current_context().exit(1)


def _replaced(
    settings: RunSettings,
    concurrency: tuple[int, ...] | None,
    request_rate: tuple[float, ...] | None,
    asked: dict[str, Any],
) -> RunSettings:
    """The configuration with what the command line says in its place."""
    fields = {key: value for key, value in asked.items() if value is not None}
    if concurrency:
        fields |= {"concurrency": concurrency, "request_rate_per_second": ()}
    if request_rate:
        fields |= {"request_rate_per_second": request_rate, "concurrency": ()}
    return dataclasses.replace(settings, **fields)


def _measure(
    name: str,
    settings: RunSettings,
    loads: Sequence[Any],
    file: Path | None,
    url: str | None,
    serve: bool,
    repository: Path,
    results: Path,
) -> tuple[RunResult, Path, bool]:
    """Run, and save whatever was measured; the result, its file, and whether it was stopped. Raises: ConchError."""
    import shutil
    import tempfile

    from conch.terminal import console
    from perf.analyzer import binary, served
    from perf.analyzer.inputs import for_model
    from perf.points import now, save, this_machine
    from perf.run import session

    binary.find_or_install()
    done: list[Step] = []
    stopped = False
    version = loads[0].version
    with (
        session.place(name, repository, settings.protocol, url=url, serve=serve) as place,
        tempfile.TemporaryDirectory(prefix="conch-perf-raw-") as raw,
    ):
        model = served.ask(place.url, name, version)
        inputs = for_model(name, model.signature, file=file, repository=repository, version=version)
        fitting, notes = session.loads_for(model, loads)
        at = now()
        console.print(f"{name} version {model.version} at {place.url}: {settings.name}, inputs from {inputs.origin}")
        try:
            with _progress(len(fitting)) as on_line:
                for step in session.steps(fitting, place, inputs, Path(raw), on_line=on_line):
                    done.append(step)
                    console.print(f"{len(done)}/{len(fitting)}  {_told(step)}", markup=False)
        except KeyboardInterrupt:
            if not any(step.point for step in done):
                raise
            stopped = True
        origin = "; ".join([inputs.origin, *notes])
        found = session.result(
            f"{name}-{settings.name}", at, this_machine(model.release), model, done, origin, len(fitting)
        )
        path = save(found, results)
        shutil.copytree(raw, path.with_suffix(""))
    return found, path, stopped


def _told(step: Step) -> str:
    """A line as soon as a load is done: a run may take long."""
    if step.point is None:
        return f"{step.load.label}: not measured: {step.failure}"
    point = step.point
    doubtful = "" if point.stable else ", unstable"
    return f"{step.load.label}: {point.requests_per_second:.1f}/s, p99 {point.latency_ms['p99']:.2f} ms{doubtful}"


@contextmanager
def _progress(loads: int) -> Iterator[OnLine]:
    """A bar over the loads' windows, fed with perf_analyzer's lines."""
    from conch.terminal import progress
    from perf.analyzer.command import WINDOWS
    from perf.analyzer.parse import read_window

    with progress() as bars:
        task = bars.add_task("starting", total=loads * WINDOWS)

        def on_line(line: str) -> None:
            text = line.strip()
            if text.startswith(("Request concurrency:", "Request Rate:")):
                bars.update(task, description=text.rstrip(".").lower())
            window = read_window(line)
            if window is not None:
                told = f"{window.inferences_per_second:.0f}/s, {window.latency_ms:.1f} ms"
                bars.update(task, description=told, advance=1)

        yield on_line


def _show(found: RunResult) -> None:
    """The points as a table, and what a table does not show."""
    from conch.terminal import console, print_table

    title = f"{found.model} version {found.version}; latency as clients see it, queue and compute in the server"
    console.print()
    rows = [_row(point) for point in found.points]
    print_table(tuple(rows[0]), [tuple(row.values()) for row in rows], title=title)
    for number, point in enumerate(found.points, 1):
        for warning in point.warnings:
            console.print(f"point {number}, {point.load.label}: {warning}", markup=False)
    for note in found.notes:
        console.print(note, markup=False)


def _row(point: Point) -> dict[str, object]:
    """A line of the table by its columns' names."""
    latency, server = point.latency_ms, point.server_ms
    compute = [server[part] for part in ("compute_input", "compute_infer", "compute_output") if part in server]
    return {
        "Load": point.load.label,
        "Requests/s": round(point.requests_per_second, 1),
        "Rows/s": round(point.inferences_per_second, 1),
        "avg ms": round(latency["avg"], 2),
        **{f"{key} ms": round(latency[key], 2) for key in ("p50", "p90", "p95", "p99")},
        "queue ms": round(server["queue"], 2) if "queue" in server else "-",
        "compute ms": round(sum(compute), 2) if compute else "-",
        "batch": "-" if point.average_batch is None else round(point.average_batch, 1),
        "": "" if point.stable else "unstable",
    }
