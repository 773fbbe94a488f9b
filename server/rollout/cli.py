"""`conch repo publish`, `rollback`, `promote`, `recover`, `watch`. What a command needs is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.repo_view.choices import as_json_option, chosen_server, repository_option

if TYPE_CHECKING:
    from conch.manifest import Golden
    from server.rollout.publish import PublishOptions

_Command = Callable[..., Any]
_FILE = click.Path(path_type=Path, dir_okay=False)


def _options(*options: _Command) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_where = _options(
    repository_option,
    click.option(
        "--server", metavar="URL", help="grpc:// address.  [default: the `conch serve` of this folder, if one runs]"
    ),
    click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header for restricted APIs."),
    click.option("--no-server", is_flag=True, help="Change files only."),
)

# What `publish` and `watch` share.
_checks = _options(
    click.option("--p99-ms", type=click.FloatRange(0, min_open=True), help="Refuse what is slower than this."),
    click.option("--tolerance", type=click.FloatRange(0), help="Of golden answers.  [default: the export's]"),
    click.option("--trial/--no-trial", default=True, show_default=True, help="Try it in a scratch Triton first."),
    click.option("--with", "also", multiple=True, metavar="NAME", help="Live model that it calls by itself (BLS)."),
    click.option("--target", help="Triton release to lint for, e.g. 24.10."),
    click.option("--keep-config", is_flag=True, help="Keep the live model's config.pbtxt."),
    click.option("--keep-loaded", is_flag=True, help="Leave the version before loaded: going back takes no load."),
    click.option("--new-tensors", is_flag=True, help="Let inputs and outputs change, though clients may break."),
    click.option("--sign", "sign_key", type=_FILE, help="Sign the version with this private key."),
    click.option("--verify-key", type=_FILE, help="Refuse what is not signed with this public key's private one."),
)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--as", "as_name", metavar="NAME", help="Model to publish it as.  [default: the name that it has]")
@click.option("--version", type=click.IntRange(1), metavar="N", help="Number of the version.  [default: the next]")
@click.option("--config", "config_file", type=_FILE, help="config.pbtxt to serve it with.")
@click.option("--golden", "golden_file", type=_FILE, help="JSON file of requests, and the answers due.")
@click.option("--alias", metavar="NAME", help="Bring it up beside what serves, as MODEL@NAME; switch nothing.")
@click.option("--dry-run", is_flag=True, help="Check and try it, and change nothing.")
@_checks
@_where
@as_json_option
def publish(
    source: Path,
    as_name: str | None,
    version: int | None,
    config_file: Path | None,
    golden_file: Path | None,
    alias: str | None,
    dry_run: bool,
    as_json: bool,
    **shared: Any,
) -> None:
    """Try a new version, and let it serve when it is right.

    SOURCE is a version folder, a model folder, a repository or stage with one model or pipeline, or an ONNX file. It is
    linted, loaded in a scratch Triton, asked its golden requests, switched in one step, and asked again live. Whatever
    fails, files and serving stay as they were. The same content again is no error, and changes nothing.

    \b
    Examples:
      conch repo publish runs/17/spam --p99-ms 20
      conch repo publish model.onnx --as spam --golden requests.json
      conch repo publish new_pipeline/ --dry-run
      conch repo publish runs/17/spam --alias canary
      conch repo publish runs/17/spam --server grpc://triton:8001 --repository /mnt/models
    """
    import dataclasses

    from conch.terminal import print_json, progress
    from server.rollout import published_report
    from server.rollout.publish import run

    if alias and shared["keep_loaded"]:
        raise click.UsageError("--alias leaves what serves alone: there is nothing to keep loaded")
    options = dataclasses.replace(
        _publish_options(config_file=config_file, **shared),
        as_name=as_name,
        version=version,
        golden=_golden(golden_file) if golden_file else (),
        alias=alias,
        dry_run=dry_run,
    )
    with progress() as bars:
        task = bars.add_task("", total=None)
        done = run(source, options, lambda step: bars.update(task, description=step))
    if as_json:
        print_json(published_report.document(done))
    else:
        published_report.show(done)


def _publish_options(
    *,
    repository: Path,
    server: str | None,
    headers: tuple[str, ...],
    no_server: bool,
    keep_config: bool,
    config_file: Path | None = None,
    **checks: Any,
) -> PublishOptions:
    from server.rollout.candidate import ConfigChoice
    from server.rollout.publish import PublishOptions

    if config_file is not None and keep_config:
        raise click.UsageError("--config and --keep-config exclude each other")
    asked = chosen_server(server, headers, no_server)
    return PublishOptions(repository, server=asked, config=ConfigChoice(config_file, keep_config), **checks)


def _golden(path: Path) -> tuple[Golden, ...]:
    from server.rollout.answers import read_golden

    return read_golden(path)


@click.command()
@click.argument("name")
@click.option("--to", "version", type=click.IntRange(1), metavar="N", help="[default: the one that served before]")
@_where
@as_json_option
def rollback(name: str, version: int | None, repository: Path, as_json: bool, **where: Any) -> None:
    """Go back to a version that served before; it is held until the next publish.

    \b
    Examples:
      conch repo rollback spam
      conch repo rollback spam --to 3
    """
    from server.rollout.going_back import roll_back

    _show_switched(roll_back(repository, name, version, chosen_server(**where)), as_json)


@click.command()
@click.argument("name", metavar="NAME[@ALIAS]")
@click.argument("version", type=click.IntRange(1), required=False, metavar="[N]")
@_where
@as_json_option
def promote(name: str, version: int | None, repository: Path, as_json: bool, **where: Any) -> None:
    """Let a version serve that is there already: the latest, version N, or a canary for everyone.

    \b
    Examples:
      conch repo promote spam
      conch repo promote spam 4
      conch repo promote spam@canary
    """
    from server.rollout.going_back import promote as run

    _show_switched(run(repository, name, version, chosen_server(**where)), as_json)


def _show_switched(done: Any, as_json: bool) -> None:
    import dataclasses

    from conch.terminal import print_json
    from server.rollout import published_report

    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        published_report.show_switched(done)


@click.command()
@_where
def recover(repository: Path, **where: Any) -> None:
    """Finish or take back what a killed command left. Every command that changes a repository begins with it.

    \b
    Examples:
      conch repo recover
      conch repo recover --repository models --server grpc://triton:8001
    """
    from conch.repository import Repository
    from conch.terminal import console
    from server.rollout.publish import connected
    from server.rollout.recover import recover as run

    found = Repository(repository)
    with connected(found, chosen_server(**where)) as live:
        console.print(run(found, live) or "nothing was left to do", markup=False)


@click.command()
@click.argument("outbox", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Seconds without a change.",
)
@click.option("--marker", metavar="FILE", help="Take only folders with this file in them, at once.")
@click.option("--once", is_flag=True, help="Publish what is there and whole, and end.")
@_checks
@_where
def watch(outbox: Path, settle: float, marker: str | None, once: bool, **shared: Any) -> int:
    """Publish what arrives in a folder, until Ctrl-C.

    A training job drops OUTBOX/NAME/ANYTHING (a folder as `publish` takes it, or an ONNX file) or OUTBOX/NAME.onnx. It
    is taken when it is whole: it has a file _SUCCESS, or was renamed in, or did not change for --settle seconds. What
    was published goes to OUTBOX/.published, what was refused to OUTBOX/.failed, each with a report beside it.

    \b
    Examples:
      conch repo watch outbox
      conch repo watch outbox --p99-ms 20 --marker _SUCCESS
      conch repo watch outbox --once --server grpc://triton:8001 --repository /mnt/models
    """
    from server.rollout.watch_outbox import Watch, follow

    return follow(Watch(outbox, settle, marker), _publish_options(**shared), once=once)
