"""`conch gateway key create|list|revoke`."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import click

from conch.errors import ConfigError, nearest
from gateway.security import keys
from gateway.security.keys import Key

_file_option = click.option(
    "--keys",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("keys.yaml"),
    show_default="keys.yaml",
    help="The keys file, YAML or JSON; `keys_file` in the gateway's settings.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group()
def key() -> None:
    """Create, list and revoke API keys. A running gateway sees a change within a second."""


@key.command()
@click.argument("name")
@_file_option
@click.option("--role", "roles", type=click.Choice(keys.ROLES), multiple=True, help="[default: infer]")
@click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="Models it may ask, with * and ?.  [default: all]"
)
@click.option("--requests", metavar="LIMIT", help="Such as 600/minute, or 20/second;10000/day.")
@click.option("--tokens", metavar="LIMIT", help="Of generation, prompt and answer; such as 100000/hour.")
@click.option("--days", type=click.IntRange(1), help="Days until it expires.  [default: never]")
@_json_option
def create(
    name: str,
    path: Path,
    roles: tuple[str, ...],
    models: tuple[str, ...],
    requests: str | None,
    tokens: str | None,
    days: int | None,
    as_json: bool,
) -> None:
    """Create a key and print it on stdout, once: the file holds its hash alone.

    NAME says whose it is, in logs, metrics and limits.

    \b
    Examples:
      conch gateway key create reports
      conch gateway key create search --model embeddings --model "rank*" --requests 600/minute
      conch gateway key create operator --role admin --days 90
    """
    from conch.terminal import console, print_json
    from gateway.security.keys_file import update

    if not keys.NAME.fullmatch(name):
        raise ConfigError(
            "that is no name for a key", got=name, expected="lower-case letters, digits, '_', '.' and '-'; 63 at most"
        )
    for text, option in ((requests, "--requests"), (tokens, "--tokens")):
        if text is not None:
            keys.check_limits(text, option)
    secret = keys.new_secret(name)
    now = keys.utc_now()
    new = Key(
        name,
        keys.digest(secret),
        frozenset(roles or (keys.INFER,)),
        models or None,
        requests,
        tokens,
        created=now,
        expires=now + timedelta(days=days) if days else None,
    )

    def add(before: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(k.name == name for k in before):
            raise ConfigError(
                f"there is a key named {name} already",
                where=path,
                fix="take another name: one that was revoked keeps its own, so that logs stay clear",
            )
        return (*before, new)

    update(path, add)
    console.print(f"key {name} is in {path}; this is the only time that it is shown", markup=False)
    if as_json:
        print_json({"name": name, "key": secret, "keys_file": str(path)})
    else:
        click.echo(secret)


@key.command("list")
@_file_option
@_json_option
def list_keys(path: Path, as_json: bool) -> None:
    """List the keys of a file, and what each may do.

    \b
    Examples:
      conch gateway key list
      conch gateway key list --keys /etc/conch/keys.yaml --json
    """
    from conch.terminal import print_json, print_table
    from gateway.security.keys_file import read

    found = read(path)
    if as_json:
        print_json({"keys": [{**entry, "state": _state(k)} for entry, k in zip(_entries(found), found, strict=True)]})
        return
    rows = [
        (
            k.name,
            ", ".join(sorted(k.roles)),
            "all" if k.models is None else ", ".join(k.models) or "none",
            k.requests or "",
            k.tokens or "",
            k.created.date() if k.created else "",
            _state(k),
        )
        for k in found
    ]
    print_table(("key", "roles", "models", "requests", "tokens", "created", "state"), rows)


@key.command()
@click.argument("name")
@_file_option
def revoke(name: str, path: Path) -> None:
    """Let a key open nothing any more. Its entry stays, so that logs stay clear.

    \b
    Examples:
      conch gateway key revoke reports
    """
    from conch.terminal import console
    from gateway.security.keys_file import read, update

    def mark(before: tuple[Key, ...]) -> tuple[Key, ...]:
        names = [k.name for k in before]
        if name not in names:
            close = nearest(name, names)
            raise ConfigError(
                f"there is no key named {name}", where=path, fix=f"did you mean {close}?" if close else None
            )
        now = keys.utc_now()
        return tuple(dataclasses.replace(k, revoked=now) if k.name == name and k.revoked is None else k for k in before)

    read(path)  # a file that is not there is said to be missing, not written
    update(path, mark)
    console.print(f"key {name} is revoked", markup=False)


def _entries(found: tuple[Key, ...]) -> list[dict[str, object]]:
    """As in the file, without the hashes: a list is shown around."""
    document = keys.to_document(found)
    return [{k: v for k, v in entry.items() if k != "sha256"} for entry in document["keys"]]


def _state(found: Key) -> str:
    if found.revoked is not None:
        return f"revoked {found.revoked.date()}"
    if found.expires is None:
        return "good"
    return f"good until {found.expires.date()}" if found.opens(keys.utc_now()) else f"expired {found.expires.date()}"
