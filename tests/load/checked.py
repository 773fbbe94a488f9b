"""What tests put a server under load with: clients over both protocols that check every answer, and models to ask.

from tests.load.checked import Load, pipeline_load, single_load

with pipeline_load(server, "digits") as load:
    with load.update():
        publish(...)
    assert load.wait_for("2")
clean(load)
"""

from __future__ import annotations

from typing import Any

from server.tiny_models import ASKED, pipeline_version, record, single_version, write_pipeline, write_single
from server.under_load import Asked, Load, LoadReport, MixedAnswer, Window, WrongAnswer

__all__ = [
    "ASKED",
    "Asked",
    "Load",
    "LoadReport",
    "MixedAnswer",
    "Window",
    "WrongAnswer",
    "clean",
    "pipeline_load",
    "pipeline_version",
    "record",
    "single_load",
    "single_version",
    "write_pipeline",
    "write_single",
]


def single_load(server: Any, model: str, **options: Any) -> Load:
    """Clients over HTTP and gRPC that ask a model of `write_single`. ``options`` are `Load`'s."""
    return Load([server.http_url, server.grpc_url], model, ASKED, single_version, **options)


def pipeline_load(server: Any, model: str, **options: Any) -> Load:
    """Clients over HTTP and gRPC that ask a pipeline of `write_pipeline`. ``options`` are `Load`'s."""
    return Load([server.http_url, server.grpc_url], model, ASKED, pipeline_version, **options)


def clean(load: Load) -> LoadReport:
    """The report of a load under which nothing failed and nothing was mixed; an assertion fails otherwise."""
    report = load.report()
    assert report.requests > 0
    assert report.failed == 0, f"{report}\nall failures: {report.failures}"
    return report
