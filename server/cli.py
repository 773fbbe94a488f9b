"""`conch serve`, `conch status`, `conch doctor`. What a command needs is imported when it runs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conch.errors import ServerError
from conch.releases import DEFAULT_TARGET
from server.repo_view.choices import header

if TYPE_CHECKING:
    from server.doctor import Check
    from server.lifecycle import TritonServer
    from server.options import RateLimitResource, Restriction, ServerOptions
    from server.status import ServerStatus

DEFAULT_URL = "http://127.0.0.1:8000"


@click.command()
@click.option(
    "--repository",
    "repositories",
    type=click.Path(path_type=Path),
    multiple=True,
    default=[Path("model_repository")],
    show_default="model_repository",
    help="Folder of models; may be given several times.",
)
@click.option("--mode", type=click.Choice(["embedded", "docker"]), default="embedded", show_default=True)
@click.option(
    "--control",
    type=click.Choice(["none", "poll", "explicit"]),
    default="poll",
    show_default=True,
    help="poll: serve what appears in the repository; explicit: what is asked for; none: what is there at the start.",
)
@click.option("--load-model", "load_models", multiple=True, help="Model to load at the start, with --control explicit.")
@click.option("--poll-interval", type=click.IntRange(1), default=2, show_default=True, help="Seconds between looks.")
@click.option("--strict", is_flag=True, help="Stop when a model does not load, in place of serving the others.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, show_default=True)
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, show_default=True)
@click.option("--http-threads", type=click.IntRange(1), help="Threads that handle HTTP requests.  [default: Triton's]")
@click.option("--exit-timeout", type=click.IntRange(0), default=10, show_default=True, help="Seconds to drain at stop.")
@click.option(
    "--log-level",
    type=click.Choice(["error", "warning", "info", "verbose"]),
    default="warning",
    show_default=True,
    help="What Triton logs; shown here, and kept with --log-file.",
)
@click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Keep Triton's log in this file.")
@click.option("--cache-mb", type=click.IntRange(1), help="Size of the response cache, for models that enable theirs.")
@click.option("--rate-limit", is_flag=True, help="Honour the models' rate_limiter settings.")
@click.option("--rate-limit-resource", "resources", multiple=True, metavar="NAME:COUNT[:DEVICE]")
@click.option("--metrics/--no-metrics", default=True, show_default=True)
@click.option("--metrics-interval", type=click.IntRange(1), default=2000, show_default=True, help="Milliseconds.")
@click.option("--summary-latencies", is_flag=True, help="Report latencies as summaries with quantiles.")
@click.option("--trace-url", help="OTLP collector to send traces to, e.g. http://localhost:4318/v1/traces.")
@click.option("--trace-rate", type=click.IntRange(1), default=1000, show_default=True, help="One request in so many.")
@click.option(
    "--restrict",
    "restrictions",
    multiple=True,
    metavar="APIS:HEADER=VALUE",
    help="Ask for a header, e.g. model-repository,logging:admin-key=secret.",
)
@click.option("--release", default=DEFAULT_TARGET, show_default=True, help="Release of NVIDIA's image (docker mode).")
@click.option("--image", help="Another image in its place, with the packages that the models need (docker mode).")
@click.option(
    "--verify-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Serve only what is signed: every version is verified with this public key before the start. Not with poll.",
)
@click.option("--flag", "extra_flags", multiple=True, help="A flag of tritonserver, passed on as it is.")
def serve(
    repositories: tuple[Path, ...],
    mode: str,
    control: str,
    load_models: tuple[str, ...],
    poll_interval: int,
    strict: bool,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    http_threads: int | None,
    exit_timeout: int,
    log_level: str,
    log_file: Path | None,
    cache_mb: int | None,
    rate_limit: bool,
    resources: tuple[str, ...],
    metrics: bool,
    metrics_interval: int,
    summary_latencies: bool,
    trace_url: str | None,
    trace_rate: int,
    restrictions: tuple[str, ...],
    release: str,
    image: str | None,
    verify_key: Path | None,
    extra_flags: tuple[str, ...],
) -> int:
    """Serve a repository with Triton, in the foreground, until Ctrl-C.

    A model that does not load is reported; the others are served.

    \b
    Examples:
      conch serve
      conch serve --repository models --http-port 9000 --grpc-port 9001 --metrics-port 9002
      conch serve --control explicit --load-model spam --load-model digits
      conch serve --mode docker --image conch-triton:24.10
      conch serve --restrict model-repository:admin-key=secret --cache-mb 64
      conch serve --control explicit --load-model "*" --verify-key release.pub
    """
    from server import options as o
    from server.serve import serve as run

    if verify_key is not None:
        from server.signed import verify_all

        verify_all(repositories, verify_key, control, load_models)

    limit = o.RateLimit(tuple(_resource(r) for r in resources)) if rate_limit or resources else None
    options = o.ServerOptions(
        control=control,
        load_models=load_models,
        poll_interval_s=poll_interval,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        http_threads=http_threads,
        exit_timeout_s=exit_timeout,
        log_level=log_level,
        cache=o.LocalCache(cache_mb << 20) if cache_mb else None,
        rate_limit=limit,
        metrics=o.Metrics(enabled=metrics, interval_ms=metrics_interval, summary_latencies=summary_latencies),
        tracing=o.OpenTelemetry(trace_url, rate=trace_rate) if trace_url else None,
        restrictions=tuple(_restriction(r) for r in restrictions),
        extra_flags=extra_flags,
    )
    return run(_server(mode, repositories, options, strict, log_file, release, image))


def _server(
    mode: str,
    repositories: tuple[Path, ...],
    options: ServerOptions,
    strict: bool,
    log_file: Path | None,
    release: str,
    image: str | None,
) -> TritonServer:
    if mode == "docker":
        from server.container import ContainerServer

        return ContainerServer(repositories, options, strict=strict, log_path=log_file, tag=release, image=image)
    from server.embedded import EmbeddedServer

    return EmbeddedServer(repositories, options, strict=strict, log_path=log_file)


def _resource(text: str) -> RateLimitResource:
    from server.options import RateLimitResource

    name, *numbers = text.split(":")
    if not name or not 1 <= len(numbers) <= 2 or not all(n.isdigit() for n in numbers):
        raise ServerError("that is no rate-limit resource", got=text, expected="NAME:COUNT or NAME:COUNT:DEVICE")
    return RateLimitResource(name, *map(int, numbers))


def _restriction(text: str) -> Restriction:
    from server.options import Restriction

    apis, _, rule = text.partition(":")
    header, _, value = rule.partition("=")
    if not (apis and header and value):
        raise ServerError("that is no restriction", got=text, expected="API[,API...]:HEADER=VALUE")
    return Restriction(tuple(apis.split(",")), header, value)


@click.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="http://, https://, grpc:// or grpcs:// address.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header for restricted APIs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Look again and again, until Ctrl-C.")
def status(url: str, headers: tuple[str, ...], as_json: bool, watch: float | None) -> None:
    """Show what a running server serves, and how it is doing.

    Averages are since each version was loaded; times are milliseconds a request.

    \b
    Examples:
      conch status
      conch status --url grpc://127.0.0.1:8001 --watch 2
      conch status --json | jq '.models[] | {name, requests}'
    """
    from conch.terminal import console, print_json
    from server.status import read

    if as_json and watch:
        raise click.UsageError("--json prints one document, and --watch many tables: choose one")
    sent = dict(header(h) for h in headers)
    if as_json:
        print_json(dataclasses.asdict(read(url, sent)))
        return
    while True:
        found = read(url, sent)
        if watch:
            console.clear()
        _print_status(found)
        if not watch:
            return
        time.sleep(watch)


def _print_status(found: ServerStatus) -> None:
    from conch.terminal import console, print_table

    state = "ready" if found.ready else "not ready: see the states below"
    console.print(f"Triton {found.version} at {found.url} is {state}", markup=False)
    if not found.models:
        console.print("it has no models: export one into its repository")
        return
    columns = ("Model", "Version", "State", "Requests", "Failed", "Batch", "Queue ms", "Compute ms", "Total ms")
    rows = [
        (
            *(m.name, m.version, m.state, m.requests, m.failures),
            *(_figure(v) for v in (m.average_batch, m.queue_ms, m.compute_ms, m.latency_ms)),
        )
        for m in found.models
    ]
    print_table(columns, rows)
    for model in found.models:
        if model.reason and model.state != "READY":
            console.print(f"{model.name} {model.version}: {model.reason}", markup=False)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def doctor(as_json: bool) -> int:
    """Check this machine, and say what to do. Ends with 1 when something has to be mended.

    \b
    Examples:
      conch doctor
      conch doctor --json | jq '.checks[] | select(.level != "ok")'
    """
    from conch.terminal import console, print_json
    from server.doctor import FAILURE, WARNING, examine

    checks = examine()
    failures = [c for c in checks if c.level == FAILURE]
    if as_json:
        print_json({"ok": not failures, "checks": [dataclasses.asdict(c) for c in checks]})
        return 1 if failures else 0
    _print_checks(checks)
    warnings = [c for c in checks if c.level == WARNING]
    console.print(f"\n{len(checks)} checks, {len(warnings)} warnings, {len(failures)} failures")
    return 1 if failures else 0


def _print_checks(checks: list[Check]) -> None:
    from conch.terminal import print_table

    print_table(("Check", "", "Found", "What to do"), [(c.name, c.level, c.found, c.fix or "") for c in checks])
