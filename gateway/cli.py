"""`conch gateway`: serve REST and OpenAI clients, in front of Triton. What it needs is imported when it runs."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conch.cli import LazyCommand, LazyGroup

if TYPE_CHECKING:
    from gateway.settings import Server, Settings

# The settings read the environment by themselves, where a value may be more than a word.
_option = functools.partial(click.option, allow_from_autoenv=False)

USUAL_REPOSITORY = Path("model_repository")


class GatewayGroup(LazyGroup):
    """Starts the gateway when it is called without a command."""

    table = {  # noqa: RUF012 - as in the root group
        "key": LazyCommand("gateway.security.keys_cli", "key", "Create, list and revoke API keys."),
    }


@click.group(cls=GatewayGroup, invoke_without_command=True)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Settings in YAML; gateway/settings.py lists the keys. Each is also CONCH_GATEWAY_KEY in the environment.",
)
@_option(
    "--server",
    "servers",
    multiple=True,
    metavar="URL[,URL]",
    help="A Triton, by its HTTP and gRPC URLs; of one, the other port is the one beside it. May be given several times."
    "  [default: the one that serves the repository, else http://127.0.0.1:8000,grpc://127.0.0.1:8001]",
)
@_option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    help="Whose aliases and canary weights hold.  [default: model_repository, where there is one]",
)
@_option("--host", help="Address to listen on; 0.0.0.0 for every one.  [default: 127.0.0.1]")
@_option("--port", type=click.IntRange(0, 65535), help="0: any free one.  [default: 9000]")
@_option("--workers", type=click.IntRange(1), help="Processes.  [default: 1]")
@_option("--keys", "keys_file", type=click.Path(path_type=Path, dir_okay=False), help="The API keys' file.")
@_option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@_option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@_option("--check", is_flag=True, help="Check the settings, print them on stdout as JSON, and stop.")
@click.pass_context
def gateway(
    context: click.Context, /, config: Path | None, servers: tuple[str, ...], check: bool, **flags: Any
) -> int | None:
    """Serve the models of one or several Tritons to REST and OpenAI clients, until Ctrl-C.

    It starts without a Triton, too, and finds one as soon as it is there. The first Ctrl-C lets requests in flight
    finish, the second ends them.

    \b
    Examples:
      conch gateway
      conch gateway --server http://gpu-1:8000 --server http://gpu-2:8000 --workers 2
      conch gateway --config gateway.yaml --check
      CONCH_GATEWAY_TIMEOUT_S=60 conch gateway --host 0.0.0.0 --port 80
      conch gateway key create reports

    \b
    Then:
      curl http://127.0.0.1:9000/v1/models
      OpenAI(base_url="http://127.0.0.1:9000/v1", api_key="none")
    """
    if context.invoked_subcommand is not None:
        return None
    from gateway.read_settings import read, server

    given = {name: value for name, value in flags.items() if value is not None}
    if servers:
        given["servers"] = [server(text) for text in servers]
    settings = _completed(read(config, os.environ, given))
    if check:
        from conch.terminal import print_json

        print_json(_plain(settings))
        return 0
    from gateway.serving import serve

    return serve(settings, lambda url: _announce(settings, url))


def _completed(settings: Settings) -> Settings:
    """The settings with what was not said and lies at hand: the usual repository, and the server that serves it."""
    import dataclasses

    from gateway.settings import Server

    if settings.repository is None and USUAL_REPOSITORY.is_dir():
        settings = dataclasses.replace(settings, repository=USUAL_REPOSITORY.absolute())
    if settings.servers == (Server(),) and settings.repository is not None:
        from server.running import find_running

        running = find_running(settings.repository)
        if running is not None:
            settings = dataclasses.replace(settings, servers=(Server(running.grpc_url, running.http_url),))
    return settings


def _announce(settings: Settings, url: str) -> None:
    from conch.terminal import console

    console.print(f"gateway  {url}", markup=False)
    if settings.page:
        console.print(f"page     {url}/", markup=False)
    console.print(f"OpenAI   {url}/v1", markup=False)
    console.print(f"REST     {url}/openapi.json", markup=False)
    for triton in settings.servers:
        console.print(f"Triton   {triton.http}, {triton.grpc}: {_state(settings, triton)}", markup=False)
    if settings.keys_file is None:
        console.print("no keys file: everybody who reaches it may ask; `conch gateway key create` makes keys")
    console.print("\nCtrl-C stops it")


def _state(settings: Settings, triton: Server) -> str:
    """Whether a server answers, in words."""
    from server.http_api import is_live

    if is_live(triton.http, settings.triton_headers):
        return "answers"
    return "does not answer yet; it is looked for (`conch serve` starts one)"


def _plain(value: Any) -> Any:
    """Settings as JSON has them."""
    import dataclasses
    from collections.abc import Mapping

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
