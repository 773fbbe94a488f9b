"""`conch repo keygen`, `sign`, `verify`. What a command needs is imported when it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from server.repo_view.choices import as_json_option, repository_option


@click.command()
@click.argument("key", type=click.Path(path_type=Path, dir_okay=False), default=Path("conch-signing.key"))
def keygen(key: Path) -> None:
    """Make a pair of keys: KEY signs versions and stays secret, KEY.pub verifies them.

    \b
    Examples:
      conch repo keygen
      conch repo keygen ~/.keys/models
    """
    from conch.signing import generate
    from conch.terminal import console

    public = generate(key)
    console.print(f"{key} signs: keep it secret, and where versions are made", markup=False)
    console.print(f"{public} verifies: put it where versions are served", markup=False)


@click.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(1), help="The one to sign.  [default: the one that serves]")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Private key, from `conch repo keygen`.")
@repository_option
def sign(name: str, version: int | None, key: Path, repository: Path) -> None:
    """Sign a version of a model, or of every part of a pipeline, whose files are those of its manifest.

    A server in poll mode loads a version again when a signature comes into its folder: rather sign before publishing.

    \b
    Examples:
      conch repo sign spam --key conch-signing.key
      conch repo sign digits --version 3 --key conch-signing.key
      conch repo sign spam --repository stage --key conch-signing.key
    """
    from conch.terminal import console
    from server.repo_view import provenance
    from server.repo_view.contents import look

    for path in provenance.sign(look(repository), name, version, key):
        console.print(f"signed {path.parent}", markup=False)


@click.command()
@click.argument("name", required=False)
@click.option("--version", type=click.IntRange(1), help="The one to verify.  [default: all]")
@click.option("--key", type=click.Path(path_type=Path), help="Public key: each version must be signed by its owner.")
@repository_option
@as_json_option
def verify(name: str | None, version: int | None, key: Path | None, repository: Path, as_json: bool) -> int:
    """Check that versions are what their manifests say and, with a key, that these are signed. Ends with 1 if not.

    \b
    Examples:
      conch repo verify
      conch repo verify spam --key conch-signing.key.pub
    """
    from conch.terminal import console, print_json, print_table
    from server.repo_view import provenance
    from server.repo_view.contents import look

    view = look(repository)
    checks = provenance.check(view, name, version, key)
    bad = [c for c in checks if not c.ok]
    others = list(provenance.other_configs(view.parts(name) if name else tuple(view.models.values())))
    if as_json:
        found = [dataclasses.asdict(c) for c in checks]
        print_json({"ok": not bad, "versions": found, "warnings": others})
        return 1 if bad else 0
    print_table(
        ("Model", "Version", "Files", "Signature"), [(c.model, c.version, c.files, c.signature) for c in checks]
    )
    console.print()
    for sentence in others:
        console.print(f"! {sentence}", markup=False)
    console.print(f"{len(checks)} versions, {len(bad)} of them not as they should be")
    return 1 if bad else 0
