"""`conch perf sweep`. What it needs is imported when it runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from perf.sweep.plan import Plan
    from perf.sweep.record import Sweep
    from perf.sweep.session import Place

RESULTS = Path("perf/results/sweep")
_PATH = click.Path(path_type=Path)
# What a sweep that goes on takes from its file.
_OF_PLAN = (
    "concurrency",
    "batch_size",
    "instances",
    "member",
    "model_version",
    "protocol",
    "inputs",
    "window_ms",
    "stability_percent",
    "max_trials",
)


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers above zero, separated by commas, each named once. Raises: click.BadParameter."""
    if value is None:
        return None
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r} is no list of numbers above zero, each once, as in 1,8,32", ctx, param)
    return found


_numbers = partial(click.option, metavar="N,N,...", callback=numbers)


@click.command()
@click.argument("name")
@_numbers("--concurrency", default="1,2,4,8,16,32", show_default=True, help="Requests in flight.")
@_numbers("--batch-size", default="1", show_default=True, help="Rows a request.")
@_numbers("--instances", help="Instances, on a server of our own.  [default: as configured]")
@click.option("--member", metavar="MODEL", help="Whose instances, in a pipeline.  [default: NAME_model]")
@click.option("--model-version", type=click.IntRange(1), help="Version to measure.  [default: the one that serves]")
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
@click.option("--inputs", type=_PATH, metavar="FILE", help="CSV, JSON, JSON lines, or a folder of images.")
@click.option("--url", metavar="URL", help="Measure on this running server, which is left as it is.")
@click.option("--repository", type=_PATH, default=Path("model_repository"), show_default=True, help="Folder of models.")
@click.option("--window-ms", type=click.IntRange(1), default=2000, show_default=True, help="Length of a window.")
@click.option("--stability-percent", type=click.FloatRange(1), default=10.0, show_default=True, help="Of a point.")
@click.option("--max-trials", type=click.IntRange(3), default=9, show_default=True, help="Windows at most, a point.")
@click.option("--resume", is_flag=True, help="Go on with the newest sweep of NAME; what failed is tried again.")
@click.option("--results", type=_PATH, default=RESULTS, show_default=True, help="Folder that sweeps are kept in.")
@click.option("--json", "as_json", is_flag=True, help="Print the sweep on stdout as JSON.")
@click.pass_context
def sweep(
    ctx: click.Context,
    /,
    name: str,
    url: str | None,
    repository: Path,
    resume: bool,
    results: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure a model over concurrency, batch size and instances.

    NAME is measured on a server of our own, which serves the repository's files and ends with the sweep; instances are
    changed there, and nothing in the repository is. Each point is saved when it is measured: Ctrl-C keeps them, and
    --resume goes on. A combination that fails is recorded, and the sweep goes on.

    \b
    Examples:
      conch perf sweep spam
      conch perf sweep spam --concurrency 1,8,32 --batch-size 1,8 --instances 1,2,4
      conch perf sweep digits --instances 1,2 --member digits_preprocess
      conch perf sweep spam --resume
      conch perf report perf/results/sweep/spam/*/
    """
    from conch.terminal import console, print_json
    from perf.sweep import record, session, table

    if url and (asked["instances"] or asked["member"]):
        raise click.UsageError("--instances and --member need a server of our own: leave out --url")
    place = session.Place(repository, url)
    if url:
        asked["protocol"] = _protocol_of(ctx, url, asked["protocol"])
    if resume:
        given = [f"--{o.replace('_', '-')}" for o in _OF_PLAN if _was_given(ctx, o)]
        if given:
            raise click.UsageError(f"--resume goes on with the sweep as it was planned: leave out {', '.join(given)}")
        folder, begun = session.find(results, name)
    else:
        begun = session.begin(name, place, _plan(name, asked))
        folder = session.new_folder(results, begun)
    console.print(f"{len(begun.left)} of {len(begun.plan.cells)} points to measure, into {folder}", markup=False)
    done, stopped = _follow(begun, folder, place)
    table.show(done)
    if done.left:
        console.print(f"{len(done.left)} points are left, for: {_going_on(ctx, name)}", markup=False)
    console.print(f"plots: conch perf report {folder}", markup=False)
    if as_json:
        print_json({"folder": str(folder), **record.to_json(done)})
    if stopped:
        ctx.exit(130)
    if not done.measured:
        ctx.exit(1)


def _was_given(ctx: click.Context, option: str) -> bool:
    return ctx.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _going_on(ctx: click.Context, name: str) -> str:
    """The command that measures what is left."""
    places = [f"--{o} {ctx.params[o]}" for o in ("url", "repository", "results") if _was_given(ctx, o)]
    return " ".join(["conch perf sweep", name, "--resume", *places])


def _protocol_of(ctx: click.Context, url: str, protocol: str) -> str:
    """The protocol that an address speaks. Raises: click.UsageError when another was asked for, InvalidInput."""
    from clients.address import parse_address

    spoken = "grpc" if parse_address(url).is_grpc else "http"
    if _was_given(ctx, "protocol") and protocol != spoken:
        raise click.UsageError(f"--protocol {protocol} does not go with {url}")
    return spoken


def _plan(name: str, asked: dict[str, Any]) -> Plan:
    """The plan that the options ask for; whose instances are changed is filled in later. Raises: ConchError."""
    from perf.points import Load
    from perf.sweep.plan import Plan

    template = Load(
        model=name,
        version="" if asked["model_version"] is None else str(asked["model_version"]),
        protocol=asked["protocol"],
        concurrency=1,
        window_ms=asked["window_ms"],
        stability_percent=asked["stability_percent"],
        max_trials=asked["max_trials"],
    )
    inputs = {} if asked["inputs"] is None else {"file": str(asked["inputs"])}
    return Plan(
        template=template,
        concurrencies=asked["concurrency"],
        batch_sizes=asked["batch_size"],
        instances=asked["instances"] or (None,),
        scaled=asked["member"] or "",
        inputs=inputs,
    )


def _follow(begun: Sweep, folder: Path, place: Place) -> tuple[Sweep, bool]:
    """Measure what is left, showing how far it has come; the sweep as it is then, and whether it was interrupted."""
    from conch.terminal import console, progress
    from perf.sweep import session, table
    from perf.sweep.plan import in_words, remaining_s

    done, took_s = begun, list[float]()
    total = len(begun.plan.cells)
    with progress() as bars:
        task = bars.add_task("starting a server", total=total, completed=total - len(begun.left))
        try:
            with session.steps(begun, folder, place) as steps:
                for step in steps:
                    done = step.sweep
                    if step.point is not None:
                        took_s.append(step.took_s)
                    tried = total - len(done.left)
                    left = in_words(remaining_s(done.plan, len(done.left), took_s))
                    remaining = f"about {left} left" if done.left else "done"
                    console.print(f"{tried}/{total}  {table.line(step)}  {remaining}", markup=False)
                    upcoming = done.left[0].label if done.left else ""
                    bars.update(task, completed=tried, description=f"{upcoming}, {remaining}" if upcoming else "done")
        except KeyboardInterrupt:
            console.print("stopped: what was measured is kept")
            return done, True
    return done, False
