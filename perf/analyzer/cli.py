"""`conch perf install`: get perf_analyzer once, ahead of the first run."""

from __future__ import annotations

import click


@click.command()
def install() -> None:
    """Get perf_analyzer into your cache folder, without root or Docker; does nothing when one runs already.

    \b
    Examples:
      conch perf install
      CONCH_PERF_ANALYZER=docker conch perf run spam     NVIDIA's SDK container instead
      CONCH_PERF_ANALYZER=/opt/perf_analyzer conch perf run spam
    """
    from conch.terminal import console
    from perf.analyzer.binary import find_or_install

    found = find_or_install()
    where = f"{found.image}: {found.path}" if found.image else found.path
    console.print(f"perf_analyzer {found.version} runs: {where}", markup=False)
