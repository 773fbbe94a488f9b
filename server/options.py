"""How a Triton server is to run, as typed values, and the flags of tritonserver that these stand for.

Pure: nothing is started and no file is looked at. The same options drive the embedded server and the container.
Source of the flags: ``tritonserver --help`` of release 2.51.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conch.errors import ServerError, nearest

CONTROLS = ("none", "poll", "explicit")
LOG_LEVELS = ("error", "warning", "info", "verbose")
LOG_FORMATS = ("default", "ISO8601")
RESTRICTABLE = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)
ALL_MODELS = "*"
GRPC_HEADER_PREFIX = "triton-grpc-protocol-"


@dataclass(frozen=True)
class LocalCache:
    """Triton's response cache in the server's own memory; models opt in with ``response_cache { enable: true }``."""

    size_bytes: int = 64 << 20


@dataclass(frozen=True)
class RateLimitResource:
    """``count`` units of a resource that instances may ask for; ``device`` None counts them for every device."""

    name: str
    count: int
    device: int | None = None


@dataclass(frozen=True)
class RateLimit:
    """Run instances by their ``rate_limiter`` priorities and only when the resources they name are free."""

    resources: tuple[RateLimitResource, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """What the Prometheus endpoint reports.

    ``summary_latencies`` adds summaries with ``quantiles`` (pairs of quantile and allowed error). ``gpu`` None reports
    on GPUs where there is one. ``settings`` are further ``--metrics-config`` pairs.
    """

    enabled: bool = True
    interval_ms: int = 2000
    cpu: bool = True
    gpu: bool | None = None
    counter_latencies: bool = True
    summary_latencies: bool = False
    quantiles: tuple[tuple[float, float], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenTelemetry:
    """Send a trace of one request in ``rate`` to an OTLP collector at ``url``.

    ``resource`` are attributes of the service, e.g. ``{"service.name": "triton"}``. ``count`` -1 never stops. ``level``
    is TIMESTAMPS or OFF: the trace API can change it while the server runs.
    """

    url: str
    rate: int = 1000
    count: int = -1
    level: str = "TIMESTAMPS"
    resource: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Restriction:
    """Endpoints that answer only requests with ``header: value``.

    Over gRPC the header is sent as ``triton-grpc-protocol-<header>``.
    """

    apis: tuple[str, ...]
    header: str
    value: str
    protocols: tuple[str, ...] = ("http", "grpc")


@dataclass(frozen=True)
class ServerOptions:
    """How to run a server. A port of 0 is replaced by a free one; None leaves a setting to Triton.

    ``load_models`` is for explicit control ("*" for all). ``exit_timeout_s`` is how long a stopping server waits for
    requests in flight, and for idle keep-alive connections too. ``log_verbose`` above 0 logs each request.
    ``backend_settings`` are triples of backend, setting and value; ``extra_flags`` are passed on as they are.
    """

    control: str = "none"
    load_models: tuple[str, ...] = ()
    poll_interval_s: int = 2
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    http_threads: int | None = None
    load_threads: int | None = None
    exit_timeout_s: int = 10
    strict_readiness: bool = True
    auto_complete: bool = True
    log_level: str = "info"
    log_verbose: int = 0
    log_format: str = "ISO8601"
    cache: LocalCache | None = None
    rate_limit: RateLimit | None = None
    metrics: Metrics = Metrics()
    tracing: OpenTelemetry | None = None
    restrictions: tuple[Restriction, ...] = ()
    backend_settings: tuple[tuple[str, str, str], ...] = ()
    extra_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("control", self.control, CONTROLS)
        _one_of("log_level", self.log_level, LOG_LEVELS)
        _one_of("log_format", self.log_format, LOG_FORMATS)
        if self.load_models and self.control != "explicit":
            raise ServerError(
                "naming the models to load needs explicit control: the other modes load them all",
                got=f"control {self.control}, load_models {', '.join(self.load_models)}",
                fix="use control explicit, or name no models",
            )
        if ALL_MODELS in self.load_models and len(self.load_models) > 1:
            raise ServerError("'*' already loads every model", got=", ".join(self.load_models), expected="'*' alone")
        for name in ("http_port", "grpc_port", "metrics_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ServerError(f"{name} is no port", got=getattr(self, name), expected="0 (any free one) to 65535")
        self._check_numbers()
        for restriction in self.restrictions:
            for api in restriction.apis:
                _one_of("restricted API", api, RESTRICTABLE)
            for protocol in restriction.protocols:
                _one_of("protocol", protocol, ("http", "grpc"))

    def _check_numbers(self) -> None:
        for name, least in (("poll_interval_s", 1), ("exit_timeout_s", 0), ("log_verbose", 0)):
            if getattr(self, name) < least:
                raise ServerError(f"{name} is too small", got=getattr(self, name), expected=f"{least} or more")
        if self.cache is not None and self.cache.size_bytes < 1 << 20:
            raise ServerError("the response cache is too small", got=self.cache.size_bytes, expected="1048576 or more")

    def headers(self, protocol: str, api: str) -> dict[str, str]:
        """The headers that a request to a restricted API needs; empty where it is open to all."""
        prefix = GRPC_HEADER_PREFIX if protocol == "grpc" else ""
        return {prefix + r.header: r.value for r in self.restrictions if protocol in r.protocols and api in r.apis}

    def with_ports(self, http: int, grpc: int, metrics: int) -> ServerOptions:
        """The same options with these ports."""
        return dataclasses.replace(self, http_port=http, grpc_port=grpc, metrics_port=metrics)


def flags(options: ServerOptions, repositories: Sequence[Path | str], *, gpu: bool) -> list[str]:
    """The arguments of tritonserver, in a fixed order; ``gpu`` says whether the machine has one.

    A model that fails to load never stops the server: whoever started it reads the repository index and decides.
    """
    arguments = [f"--model-repository={path}" for path in repositories]
    arguments += ["--exit-on-error=false", f"--strict-readiness={_bool(options.strict_readiness)}"]
    arguments += [f"--exit-timeout-secs={options.exit_timeout_s}"]
    arguments += _control_flags(options)
    arguments += _endpoint_flags(options)
    arguments += _log_flags(options)
    arguments += _metrics_flags(options.metrics, options.metrics_port, gpu=gpu)
    if options.cache is not None:
        arguments.append(f"--cache-config=local,size={options.cache.size_bytes}")
    if options.rate_limit is not None:
        arguments.append("--rate-limit=execution_count")
        for resource in options.rate_limit.resources:
            device = "" if resource.device is None else f":{resource.device}"
            arguments.append(f"--rate-limit-resource={resource.name}:{resource.count}{device}")
    if options.tracing is not None:
        arguments += _tracing_flags(options.tracing)
    arguments += [f"--backend-config={b},{key}={value}" for b, key, value in options.backend_settings]
    return [*arguments, *options.extra_flags]


def _control_flags(options: ServerOptions) -> list[str]:
    arguments = [f"--model-control-mode={options.control}"]
    if options.control == "poll":
        arguments.append(f"--repository-poll-secs={options.poll_interval_s}")
    arguments += [f"--load-model={name}" for name in options.load_models]
    if options.load_threads is not None:
        arguments.append(f"--model-load-thread-count={options.load_threads}")
    if not options.auto_complete:
        arguments.append("--disable-auto-complete-config")
    return arguments


def _endpoint_flags(options: ServerOptions) -> list[str]:
    arguments = [
        f"--http-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-address={options.host}",
        f"--grpc-port={options.grpc_port}",
    ]
    if options.http_threads is not None:
        arguments.append(f"--http-thread-count={options.http_threads}")
    for r in options.restrictions:
        rule = f"{','.join(r.apis)}:{r.header}={r.value}"
        if "http" in r.protocols:
            arguments.append(f"--http-restricted-api={rule}")
        if "grpc" in r.protocols:
            arguments.append(f"--grpc-restricted-protocol={rule}")
    return arguments


def _log_flags(options: ServerOptions) -> list[str]:
    level = LOG_LEVELS.index(options.log_level)
    verbose = max(options.log_verbose, 1) if options.log_level == "verbose" else options.log_verbose
    return [
        f"--log-verbose={verbose}",
        f"--log-info={_bool(level >= LOG_LEVELS.index('info'))}",
        f"--log-warning={_bool(level >= LOG_LEVELS.index('warning'))}",
        "--log-error=true",
        f"--log-format={options.log_format}",
    ]


def _metrics_flags(metrics: Metrics, port: int, *, gpu: bool) -> list[str]:
    if not metrics.enabled:
        return ["--allow-metrics=false"]
    arguments = [
        "--allow-metrics=true",
        f"--metrics-port={port}",
        f"--metrics-interval-ms={metrics.interval_ms}",
        f"--allow-cpu-metrics={_bool(metrics.cpu)}",
        f"--allow-gpu-metrics={_bool(gpu if metrics.gpu is None else metrics.gpu)}",
        f"--metrics-config=counter_latencies={_bool(metrics.counter_latencies)}",
        f"--metrics-config=summary_latencies={_bool(metrics.summary_latencies)}",
    ]
    if metrics.quantiles:
        pairs = ",".join(f"{quantile:g}:{error:g}" for quantile, error in metrics.quantiles)
        arguments.append(f"--metrics-config=summary_quantiles={pairs}")
    return arguments + [f"--metrics-config={key}={value}" for key, value in sorted(metrics.settings.items())]


def _tracing_flags(tracing: OpenTelemetry) -> list[str]:
    arguments = [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=level={tracing.level}",
        f"--trace-config=rate={tracing.rate}",
        f"--trace-config=count={tracing.count}",
        f"--trace-config=opentelemetry,url={tracing.url}",
    ]
    resource = sorted(tracing.resource.items())
    arguments += [f"--trace-config=opentelemetry,resource={key}={value}" for key, value in resource]
    return arguments + [
        f"--trace-config=opentelemetry,{key}={value}" for key, value in sorted(tracing.settings.items())
    ]


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _one_of(what: str, got: str, allowed: Sequence[str]) -> None:
    if got not in allowed:
        close = nearest(got, allowed)
        raise ServerError(
            f"{what} has no value {got!r}",
            got=got,
            expected=", ".join(allowed),
            fix=f"did you mean {close}?" if close else None,
        )
