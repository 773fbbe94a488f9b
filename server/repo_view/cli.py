"""`conch repo list`, `show`, `diff`, `alias`, `prune`.

What a command needs is imported when it runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.repo_view.choices import as_json_option, chosen_server, repository_option, server_options

if TYPE_CHECKING:
    from server.repo_view.live_states import Server


@click.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@repository_option
@server_options
@as_json_option
def list_models(
    names: tuple[str, ...],
    repository: Path,
    server: str | None,
    headers: tuple[str, ...],
    no_server: bool,
    as_json: bool,
) -> None:
    """Show the models, their versions, and which serve.

    What serves is the running server's answer where there is one, else what the files say that Triton would load.

    \b
    Examples:
      conch repo list
      conch repo list digits --server grpc://10.0.0.7:8001
      conch repo list --json | jq '.models[] | {name, serves}'
    """
    from conch.terminal import console, print_json, print_table
    from server.repo_view import listing
    from server.repo_view.contents import look

    live, reason = chosen_server(server, headers, no_server).states_or_reason(repository)
    view = look(repository, live)
    rows = [row for depth, model in listing.in_order(view, names) for row in listing.rows(view, depth, model)]
    if as_json:
        print_json(listing.document(view, names))
        return
    if not rows:
        console.print(f"{view.root} holds no model: `conch export --help` says how one gets there", markup=False)
        return
    print_table(listing.columns(view), rows)
    console.print()
    console.print(_asked_whom(live.url if live else None, reason), markup=False)
    for remark in listing.remarks(view):
        console.print(f"! {remark}", markup=False)


def _asked_whom(url: str | None, reason: str) -> str:
    if url:
        return f"as the server at {url} says"
    return f"as the files say; {reason or 'no server is known to serve this folder (--server names one)'}"


@click.command()
@click.argument("name")
@click.option("--version", "number", type=click.IntRange(1), help="The one to show.  [default: the one that serves]")
@repository_option
@server_options
@as_json_option
def show(
    name: str,
    number: int | None,
    repository: Path,
    server: str | None,
    headers: tuple[str, ...],
    no_server: bool,
    as_json: bool,
) -> None:
    """Show all that is known of one model: signature, versions, provenance, golden requests, config, history.

    \b
    Examples:
      conch repo show spam
      conch repo show digits --version 2
      conch repo show spam --json | jq .manifest.source
    """
    from conch.terminal import console, print_json
    from server.repo_view import details, printing
    from server.repo_view.contents import look

    live, reason = chosen_server(server, headers, no_server).states_or_reason(repository)
    view = look(repository, live)
    model = view.model(name)
    version = model.version(number) if number else model.main_version()
    if as_json:
        print_json(details.document(view, model, version))
        return
    printing.print_model(view, model, version)
    console.print()
    console.print(_asked_whom(live.url if live else None, reason), markup=False)


@click.command()
@click.argument("name")
@click.argument("before", type=click.IntRange(1), metavar="N")
@click.argument("after", type=click.IntRange(1), metavar="M")
@repository_option
@as_json_option
def diff(name: str, before: int, after: int, repository: Path, as_json: bool) -> None:
    """Compare versions N and M of a model, and of a pipeline's every part.

    Signature, config, source, files, the ONNX graph's operators and weights, and the answers to the golden requests.

    \b
    Examples:
      conch repo diff spam 1 2
      conch repo diff digits 3 4 --json | jq '.parts[].golden'
    """
    from conch.terminal import console, print_json
    from server.repo_view import printing
    from server.repo_view.comparison import compare_parts
    from server.repo_view.contents import look

    found = compare_parts(look(repository), name, before, after)
    if as_json:
        parts = [{**dataclasses.asdict(part), "same": part.same} for part in found]
        print_json({"model": name, "before": before, "after": after, "parts": parts})
        return
    for index, part in enumerate(found):
        if index:
            console.print()
        printing.print_comparison(part)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--keep", type=click.IntRange(1), required=True, metavar="N", help="How many of the newest to keep.")
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what stays and why.")
@repository_option
@server_options
@as_json_option
def prune(
    names: tuple[str, ...],
    keep: int,
    dry_run: bool,
    repository: Path,
    server: str | None,
    headers: tuple[str, ...],
    no_server: bool,
    as_json: bool,
) -> None:
    """Remove all but the newest N versions of models (of all, when none is named); a pipeline's parts together.

    Never what serves or may be asked for: by the config's policy, on the running server, under an alias, pinned in an
    ensemble, or held; and never the version that served before, which a rollback goes back to.

    \b
    Examples:
      conch repo prune --keep 3 --dry-run
      conch repo prune spam digits --keep 2
    """
    from conch.terminal import console, print_json
    from server.repo_view import printing, pruning
    from server.repo_view.contents import look

    asked = chosen_server(server, headers, no_server)
    if dry_run:
        plans = pruning.plan(look(repository, asked.states(repository)), names, keep)
    else:
        plans = pruning.prune(repository, names, keep, asked)
    if as_json:
        print_json({"dry_run": dry_run, "models": [pruning.document(found) for found in plans]})
        return
    printing.print_plans(plans, dry_run=dry_run)
    if asked.find(repository) is None:
        console.print("no server was asked what it serves: name one that serves this folder with --server")


@click.command()
@click.argument("name", required=False, metavar="[MODEL[@ALIAS]]")
@click.argument("version", required=False, type=click.IntRange(1))
@click.option("--weight", type=click.FloatRange(0, 1), help="Share of the model's traffic that clients send there.")
@click.option("--remove", is_flag=True, help="Forget the alias, and take down the canary behind it.")
@repository_option
@server_options
@as_json_option
def alias(
    name: str | None,
    version: int | None,
    weight: float | None,
    remove: bool,
    repository: Path,
    server: str | None,
    headers: tuple[str, ...],
    no_server: bool,
    as_json: bool,
) -> None:
    """Name versions that are served, and give them a share of the traffic; without a version, show the names.

    Clients ask for `spam@stable`, and send their share of `spam` to an alias with a weight by themselves.

    \b
    Examples:
      conch repo alias
      conch repo alias spam@stable 3
      conch repo alias spam@canary --weight 0.1
      conch repo alias spam@canary --remove
    """
    from conch.terminal import console
    from server.repo_view import aliasing

    asked = chosen_server(server, headers, no_server)
    changes = version is not None or weight is not None or remove
    if changes and not name:
        raise click.UsageError("which alias? name it as MODEL@ALIAS")
    if remove and (version is not None or weight is not None):
        raise click.UsageError("--remove goes with neither a version nor --weight")
    if name and remove:
        gone = aliasing.remove_alias(repository, name, asked)
        console.print(f"{name} is removed{' with ' + ', '.join(gone) if gone else ''}", markup=False)
    elif name and changes:
        aliasing.set_alias(repository, name, version, weight, asked)
    _print_aliases(repository, name.partition("@")[0] if name else None, asked, as_json)


def _print_aliases(repository: Path, name: str | None, asked: Server, as_json: bool) -> None:
    from conch.terminal import console, print_json, print_table
    from server.repo_view import aliasing, wording
    from server.repo_view.contents import look

    live, _ = asked.states_or_reason(repository)
    found = aliasing.listed(look(repository, live), name)
    if as_json:
        print_json({"aliases": [dataclasses.asdict(named) for named in found]})
        return
    if not found:
        console.print(f"{name or 'no model'} has {'no' if name else 'an'} alias", markup=False)
        return
    rows = [
        (
            *(f"{n.name}@{n.alias_name}", n.alias.version, n.alias.model),
            *(wording.share(n.alias.weight) if n.alias.weight else wording.NOTHING, n.state or wording.NOTHING),
        )
        for n in found
    ]
    print_table(("Alias", "Version", "Served as", "Traffic", "State"), rows)
