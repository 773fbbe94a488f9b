"""The options that several commands of `conch repo` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def repository_option(command: Command) -> Command:
    """Add --repository."""
    return click.option(
        "--repository",
        type=click.Path(path_type=Path),
        default=Path("model_repository"),
        show_default="model_repository",
        help="Folder of models.",
    )(command)


def server_options(command: Command) -> Command:
    """Add --server, --header and --no-server."""
    command = click.option("--no-server", is_flag=True, help="Look at files only.")(command)
    command = click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="For restricted APIs.")(
        command
    )
    return click.option("--server", metavar="URL", help="Server to ask.  [default: the one that serves this folder]")(
        command
    )


def as_json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)
