"""`conch perf explain`. What the command needs is imported when it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import urlsplit

import click


@click.command()
@click.argument("name")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="Where the model is; a server of our own serves it, unless --url names one.",
)
@click.option("--url", help="Explain on this running server (http://HOST:PORT) instead.")
@click.option("--protocol", type=click.Choice(["http", "grpc"]), default="http", show_default=True)
@click.option("--grpc-url", help="The running server's gRPC.  [default: grpc://, --url's host, port 8001]")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent to the server; may be repeated.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Requests in flight.")
@click.option("--seconds", type=click.FloatRange(0.2), default=5.0, show_default=True, help="How long the load lasts.")
@click.option(
    "--warmup", "warmup_s", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds before."
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, exists=True),
    help="What to ask with: CSV, JSON, JSON lines, a folder of images.  [default: as `conch perf run`]",
)
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw the waterfall into this file.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("perf/results/explain"),
    show_default=True,
    help="Folder that the figures are kept in, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything on stdout as JSON.")
def explain(
    name: str,
    repository: Path,
    url: str | None,
    protocol: str,
    grpc_url: str | None,
    headers: tuple[str, ...],
    concurrency: int,
    seconds: float,
    warmup_s: float,
    inputs: Path | None,
    png: Path | None,
    results: Path,
    as_json: bool,
) -> None:
    """Show where the time of a request to NAME goes, step by step, and which settings to change.

    Requests are sent for some seconds, from this machine. The parts come from the server's traces, which a server of
    our own writes; a running server's are used where it was started with a trace file on this machine, and its
    statistics otherwise. They add up to the latency that the client measured, and what is left over is shown.

    \b
    Examples:
      conch perf explain embeddings
      conch perf explain embeddings --concurrency 32 --protocol grpc --png waterfall.png
      conch perf explain spam --url http://127.0.0.1:8000 --inputs texts.csv
      conch perf explain spam --json | jq '.findings[].change'
    """
    from conch.repository import Repository
    from conch.terminal import console, print_json
    from perf.explain import explain as explaining
    from perf.explain import printing, scratch, waterfall

    store = Repository(repository)
    load = explaining.LoadFor(concurrency=concurrency, seconds=seconds, warmup_s=warmup_s)
    if url is not None:
        found = explaining.explain(
            name,
            url.rstrip("/"),
            load,
            load_url=(grpc_url or _beside(url)) if protocol == "grpc" else "",
            inputs=inputs,
            repository=repository,
            headers=_headers(headers),
        )
    else:
        with scratch.traced_server(store, name) as traced:
            console.print(f"explaining {name} for {warmup_s + seconds:g} s on a server of our own")
            server = traced.server
            found = explaining.explain(
                name,
                server.http_url,
                load,
                load_url=server.grpc_url if protocol == "grpc" else "",
                inputs=inputs,
                repository=repository,
            )
            found = dataclasses.replace(found, notes=(*found.notes, *traced.notes))
    printing.show(found)
    console.print(f"\nfigures: {printing.save(found, results)}", markup=False)
    if png is not None:
        title = f"{name}: where a request's time goes, {concurrency} in flight"
        waterfall.write_plot(found.breakdown, title, png)
        console.print(f"waterfall: {png}", markup=False)
    if as_json:
        print_json(printing.document(found))


def _beside(url: str) -> str:
    """Where gRPC usually is when HTTP is there."""
    return f"grpc://{urlsplit(url).hostname}:8001"


def _headers(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if ":" not in pair:
            raise click.BadParameter(f"{pair!r} is not NAME:VALUE", param_hint="--header")
    return {name.strip(): value.strip() for name, value in (pair.split(":", 1) for pair in pairs)}
