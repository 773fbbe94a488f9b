"""`conch perf`: measure what is served, explain it, improve it. Each command is imported when it is called."""

from __future__ import annotations

import click

from conch.cli import LazyCommand, LazyGroup

COMMANDS = {
    "run": LazyCommand("perf.run.cli", "run", "Measure a model with perf_analyzer."),
    "sweep": LazyCommand("perf.sweep.cli", "sweep", "Measure over concurrency, batch and instances."),
    "tune": LazyCommand("perf.tune.cli", "tune", "Search for the best settings, and write them back."),
    "explain": LazyCommand("perf.explain.cli", "explain", "Show where a request's time goes, and what to change."),
    "compare": LazyCommand("perf.compare_runs", "compare", "Compare two runs, or two versions, with the noise told."),
    "report": LazyCommand("perf.report.cli", "report", "Write results as one HTML page with plots."),
    "install": LazyCommand("perf.analyzer.cli", "install", "Get perf_analyzer, without root or Docker."),
}


class PerfGroup(LazyGroup):
    """The lazy group over this module's table."""

    table = COMMANDS


@click.group(cls=PerfGroup)
def perf() -> None:
    """Measure what is served, explain it, and improve it.

    \b
    Examples:
      conch perf run spam
      conch perf run spam --concurrency 1,8,32 --protocol http
      conch perf tune spam --p99-ms 50
      conch perf explain embeddings
    """
