"""Options become tritonserver's flags, and nonsense is refused."""

from __future__ import annotations

from typing import Any

import pytest

from conch.errors import ServerError
from server.options import (
    LocalCache,
    Metrics,
    OpenTelemetry,
    RateLimit,
    RateLimitResource,
    Restriction,
    ServerOptions,
    flags,
)


def lines(gpu: bool = False, **options: Any) -> list[str]:
    return flags(ServerOptions(**options), ["/repo"], gpu=gpu)


def test_the_defaults() -> None:
    assert lines() == [
        "--model-repository=/repo",
        "--exit-on-error=false",
        "--strict-readiness=true",
        "--exit-timeout-secs=10",
        "--model-control-mode=none",
        "--http-address=127.0.0.1",
        "--http-port=8000",
        "--grpc-address=127.0.0.1",
        "--grpc-port=8001",
        "--log-verbose=0",
        "--log-info=true",
        "--log-warning=true",
        "--log-error=true",
        "--log-format=ISO8601",
        "--allow-metrics=true",
        "--metrics-port=8002",
        "--metrics-interval-ms=2000",
        "--allow-cpu-metrics=true",
        "--allow-gpu-metrics=false",
        "--metrics-config=counter_latencies=true",
        "--metrics-config=summary_latencies=false",
    ]


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({"control": "poll", "poll_interval_s": 7}, ["--model-control-mode=poll", "--repository-poll-secs=7"]),
        ({"control": "explicit", "load_models": ("a", "b")}, ["--load-model=a", "--load-model=b"]),
        ({"control": "explicit", "load_models": ("*",)}, ["--load-model=*"]),
        ({"load_threads": 2}, ["--model-load-thread-count=2"]),
        ({"auto_complete": False}, ["--disable-auto-complete-config"]),
        ({"http_threads": 4}, ["--http-thread-count=4"]),
        ({"strict_readiness": False}, ["--strict-readiness=false"]),
        ({"exit_timeout_s": 3}, ["--exit-timeout-secs=3"]),
        ({"host": "0.0.0.0"}, ["--http-address=0.0.0.0", "--grpc-address=0.0.0.0"]),
        ({"log_level": "error"}, ["--log-info=false", "--log-warning=false", "--log-error=true"]),
        ({"log_level": "warning"}, ["--log-info=false", "--log-warning=true"]),
        ({"log_level": "verbose"}, ["--log-verbose=1", "--log-info=true"]),
        ({"log_verbose": 2}, ["--log-verbose=2"]),
        ({"log_format": "default"}, ["--log-format=default"]),
        ({"cache": LocalCache(1 << 20)}, ["--cache-config=local,size=1048576"]),
        ({"rate_limit": RateLimit()}, ["--rate-limit=execution_count"]),
        (
            {"rate_limit": RateLimit((RateLimitResource("R1", 4), RateLimitResource("R2", 2, 0)))},
            ["--rate-limit-resource=R1:4", "--rate-limit-resource=R2:2:0"],
        ),
        ({"metrics": Metrics(interval_ms=500, gpu=True)}, ["--metrics-interval-ms=500", "--allow-gpu-metrics=true"]),
        (
            {"metrics": Metrics(summary_latencies=True, quantiles=((0.5, 0.05), (0.99, 0.001)))},
            ["--metrics-config=summary_latencies=true", "--metrics-config=summary_quantiles=0.5:0.05,0.99:0.001"],
        ),
        ({"metrics": Metrics(settings={"b": "2", "a": "1"})}, ["--metrics-config=a=1", "--metrics-config=b=2"]),
        (
            {"tracing": OpenTelemetry("http://h:4318/v1/traces", rate=1, resource={"service.name": "t"})},
            [
                "--trace-config=mode=opentelemetry",
                "--trace-config=level=TIMESTAMPS",
                "--trace-config=rate=1",
                "--trace-config=count=-1",
                "--trace-config=opentelemetry,url=http://h:4318/v1/traces",
                "--trace-config=opentelemetry,resource=service.name=t",
            ],
        ),
        (
            {"restrictions": (Restriction(("model-repository", "logging"), "key", "v"),)},
            [
                "--http-restricted-api=model-repository,logging:key=v",
                "--grpc-restricted-protocol=model-repository,logging:key=v",
            ],
        ),
        (
            {"backend_settings": (("python", "shm-default-byte-size", "1"),)},
            ["--backend-config=python,shm-default-byte-size=1"],
        ),
        ({"extra_flags": ("--id=me",)}, ["--id=me"]),
    ],
)
def test_an_option_becomes_its_flags(options: dict[str, Any], due: list[str]) -> None:
    got = lines(**options)
    assert [line for line in got if line in due] == due
    assert not set(due) - set(got)
    assert set(due) - set(lines())


def test_metrics_off_leaves_one_flag() -> None:
    assert [line for line in lines(metrics=Metrics(enabled=False)) if "metrics" in line] == ["--allow-metrics=false"]


def test_a_restriction_may_be_for_one_protocol() -> None:
    got = lines(restrictions=(Restriction(("trace",), "key", "v", protocols=("grpc",)),))
    assert [line for line in got if "restricted" in line] == ["--grpc-restricted-protocol=trace:key=v"]


def test_gpu_metrics_follow_the_machine() -> None:
    assert "--allow-gpu-metrics=true" in lines(gpu=True)
    assert "--allow-gpu-metrics=false" in lines(gpu=True, metrics=Metrics(gpu=False))


def test_headers_of_restricted_apis() -> None:
    options = ServerOptions(restrictions=(Restriction(("health",), "key", "v"), Restriction(("trace",), "k", "w")))
    assert options.headers("http", "health") == {"key": "v"}
    assert options.headers("grpc", "trace") == {"triton-grpc-protocol-k": "w"}
    assert options.headers("http", "inference") == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control": "pol"}, "did you mean poll"),
        ({"log_level": "loud"}, "error, warning, info, verbose"),
        ({"load_models": ("a",)}, "explicit control"),
        ({"control": "explicit", "load_models": ("*", "a")}, "alone"),
        ({"http_port": 70000}, "http_port is no port"),
        ({"grpc_port": -1}, "grpc_port is no port"),
        ({"poll_interval_s": 0}, "poll_interval_s"),
        ({"exit_timeout_s": -1}, "exit_timeout_s"),
        ({"cache": LocalCache(10)}, "cache is too small"),
        ({"restrictions": (Restriction(("inferense",), "k", "v"),)}, "did you mean inference"),
        ({"restrictions": (Restriction(("trace",), "k", "v", protocols=("ftp",)),)}, "http, grpc"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ServerError) as raised:
        ServerOptions(**options)
    assert message in str(raised.value)
