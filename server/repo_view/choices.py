"""The options that several commands of `conch repo` share, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from server.repo_view.live_states import Server

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


def chosen_server(server: str | None, headers: tuple[str, ...], no_server: bool) -> Server:
    """What --server, --header and --no-server come to. Raises: click.UsageError."""
    from server.repo_view.live_states import Server

    if server and no_server:
        raise click.UsageError("--server and --no-server exclude each other")
    return Server(server, tuple(header(h) for h in headers), no_server)


def header(text: str) -> tuple[str, str]:
    """A --header as name and value. Raises: click.UsageError."""
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise click.UsageError(f"--header takes NAME:VALUE, not {text!r}")
    return name.strip(), value.strip()
