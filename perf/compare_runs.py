"""`conch perf compare`: two results, or two versions, load by load, with the noise told."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perf.sweep.cli import numbers

if TYPE_CHECKING:
    from perf.report.results import Result
    from perf.run_ratios import LevelComparison
    from perf.version_rounds import Rounds, Turn, Version

RESULTS = Path("perf/results/compare")
HEADER = ("load", "", "A", "B", "B over A", "range", "difference", "")
_PATH = click.Path(path_type=Path)
_numbers = partial(click.option, metavar="N,N,...", callback=numbers, show_default=True)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--fail-if-slower", type=click.FloatRange(0), metavar="PERCENT", help="Exit with 1 when B is, by more.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Of two versions.")
@_numbers("--concurrency", default="1,8,32", help="Requests in flight, of two versions.")
@_numbers("--batch-size", default="1", help="Rows a request, of two versions.")
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
@click.option("--inputs", type=_PATH, metavar="FILE", help="CSV, JSON, JSON lines, or a folder of images.")
@click.option("--repository", type=_PATH, default=Path("model_repository"), show_default=True, help="Folder of models.")
@click.option("--config", type=click.Choice(["own", "live"]), default="own", show_default=True, help="Of each version.")
@click.option("--window-ms", type=click.IntRange(1), default=2000, show_default=True, help="Length of a window.")
@click.option("--results", type=_PATH, default=RESULTS, show_default=True, help="Where versions' results are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison on stdout as JSON.")
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    a: str,
    b: str,
    fail_if_slower: float | None,
    as_json: bool,
    repository: Path,
    config: str,
    results: Path,
    **measuring: Any,
) -> None:
    """Compare two results, or two versions of a model, at each load that both have.

    A and B are results (a file of `conch perf run`, a sweep's folder), or versions as NAME:N, which are then measured
    in turns, each on a server of our own. Ratios are B over A. The noise comes from repeated points or rounds; where a
    load was measured once, from the stability that was asked of it. A difference within the noise is none.

    The exit code is 0. With --fail-if-slower it is 1 when B is slower by more than PERCENT and by more than the noise,
    in throughput, p50 or p99; or when B fails where A does not.

    \b
    Examples:
      conch perf compare before.json after.json
      conch perf compare spam:3 spam:4 --rounds 7
      conch perf compare main.json branch.json --fail-if-slower 5 --json
    """
    from conch.errors import ConchError
    from conch.terminal import console, print_json
    from perf.run_ratios import Measurement, too_slow
    from perf.run_ratios import compare as compare_measurements
    from perf.sweep.record import brief

    versions = _versions(a, b)
    if versions is None:
        sides = (_one_result(Path(a)), _one_result(Path(b)))
        new_failures = _new_failures(*sides)
        _warn_of_machines(*sides)
    else:
        sides, failed = _measure(versions, repository, results, config == "own", _rounds(**measuring))
        new_failures = [turn.error for turn in failed if turn.side == 1]
    of_a, of_b = ([Measurement(row.point, row.instances) for row in side.rows] for side in sides)
    levels, only_a, only_b = compare_measurements(of_a, of_b, in_turns=versions is not None)
    if not levels and not new_failures:
        raise ConchError(
            "the two have no load in common",
            got=f"A: {', '.join(only_a) or 'nothing'}; B: {', '.join(only_b) or 'nothing'}",
            fix="measure both with the same --concurrency, --batch-size and --instances",
        )
    slower = [] if fail_if_slower is None else too_slow(levels, fail_if_slower)
    slower += [] if fail_if_slower is None else [f"failed: {brief(reason)}" for reason in new_failures]
    _show(levels, sides)
    for name, only in (("A", only_a), ("B", only_b)):
        if only:
            console.print(f"only in {name}: {'; '.join(only)}", markup=False)
    for reason in new_failures:
        console.print(f"B failed: {brief(reason)}", markup=False)
    for line in slower:
        console.print(f"slower than allowed: {line}", markup=False)
    if as_json:
        print_json(_document(sides, levels, only_a, only_b, new_failures, slower))
    if slower:
        ctx.exit(1)


def _versions(a: str, b: str) -> tuple[Version, Version] | None:
    """Both as versions; None when both are results. Raises: click.UsageError when they are of two kinds."""
    from perf.version_rounds import parse_version

    found = [None if Path(word).exists() else parse_version(word) for word in (a, b)]
    if found[0] is not None and found[1] is not None:
        return found[0], found[1]
    if found[0] is not None or found[1] is not None:
        raise click.UsageError("compare two results, or two versions as NAME:N: not one with the other")
    return None


def _rounds(
    *,
    rounds: int,
    concurrency: tuple[int, ...],
    batch_size: tuple[int, ...],
    protocol: str,
    inputs: Path | None,
    window_ms: int,
) -> Rounds:
    """What the options ask for."""
    from perf.version_rounds import Rounds

    return Rounds(rounds, concurrency, batch_size, protocol, window_ms, inputs)


def _one_result(path: Path) -> Result:
    """The result in a file or folder. Raises: ConchError when a folder holds several."""
    from conch.errors import ConchError
    from perf.report.results import read_all

    found = read_all([path])
    if len(found) > 1:
        raise ConchError(
            "the folder holds several results",
            where=path,
            got=", ".join(result.path.name for result in found[:5]),
            fix="name one of the files",
        )
    return found[0]


def _measure(
    versions: tuple[Version, Version], store: Path, results: Path, own_config: bool, rounds: Rounds
) -> tuple[tuple[Result, Result], list[Turn]]:
    """Both versions' points, measured in turns and saved; and what failed. Raises: ConchError."""
    from conch.terminal import console, progress
    from perf import points
    from perf.report.results import read_all
    from perf.sweep.plan import in_words
    from perf.version_rounds import measure_versions

    console.print(
        f"{rounds.rounds} rounds of {versions[0]} and {versions[1]} in turns, about {in_words(rounds.expected_s)}",
        markup=False,
    )
    with progress() as bars:
        task = bars.add_task("starting two servers", total=rounds.turns)

        def on_turn(turn: Turn) -> None:
            bars.update(task, advance=1, description=f"round {turn.round + 1}/{rounds.rounds}, {turn.load.label}")

        measured, failed = measure_versions(versions, store, rounds, own_config=own_config, on_turn=on_turn)
    paths = [points.save(result, results) for result in measured]
    console.print(f"kept: {paths[0]} and {paths[1]}", markup=False)
    of_a, of_b = read_all(paths)
    return (of_a, of_b), failed


def _new_failures(a: Result, b: Result) -> list[str]:
    """What failed in B, and not in A."""
    known = {failure.what for failure in a.failures}
    return [f"{failure.what}: {failure.error}" for failure in b.failures if failure.what not in known]


def _warn_of_machines(a: Result, b: Result) -> None:
    from conch.terminal import console

    if a.machine != b.machine:
        words = [f"{m.cpu}, {m.cores} cores, Triton {m.triton}" for m in (a.machine, b.machine)]
        console.print(f"measured on different machines: A on {words[0]}; B on {words[1]}", markup=False)


def _show(levels: list[LevelComparison], sides: tuple[Result, Result]) -> None:
    """The table on stderr: three lines a load."""
    from conch.terminal import console, print_table
    from perf.report.page import number
    from perf.run_ratios import FIGURE_NAMES

    rows = []
    for level in levels:
        remarks = []
        if any(level.unstable):
            remarks.append(
                f"unstable: {level.unstable[0]} of {level.points[0]}, {level.unstable[1]} of {level.points[1]}"
            )
        if any(level.failures):
            remarks.append(f"failed requests: {level.failures[0]}, {level.failures[1]}")
        for index, ratio in enumerate(level.ratios):
            first = index == 0
            rows.append(
                (
                    level.label if first else "",
                    FIGURE_NAMES[ratio.figure],
                    number(ratio.a),
                    number(ratio.b),
                    f"{ratio.ratio:.2f}",
                    f"{ratio.low:.2f} to {ratio.high:.2f}",
                    ratio.verdict,
                    "; ".join(remarks) if first else "",
                )
            )
    if rows:
        print_table(HEADER, rows, title=f"\nA: {sides[0].title}   B: {sides[1].title}")
        console.print(_where_from(levels), markup=False)


def _where_from(levels: list[LevelComparison]) -> str:
    """Where the ranges come from, in a sentence."""
    bases = {ratio.basis for level in levels for ratio in level.ratios}
    words = []
    if "rounds" in bases:
        words.append("A and B are medians; ratios and ranges are those of the rounds, each taken within its round")
    if "repeated" in bases:
        words.append("ranges are from the worst over the best to the reverse, of repeated points")
    if bases & {"measured once", "unstable"}:
        words.append("what was measured once is taken to be off by up to the stability that was asked of it")
    if "unstable" in bases:
        words.append("of single unstable points no difference is told")
    return "; ".join(words)


def _document(
    sides: tuple[Result, Result],
    levels: list[LevelComparison],
    only_a: list[str],
    only_b: list[str],
    new_failures: list[str],
    slower: list[str],
) -> dict[str, Any]:
    import dataclasses

    names = {
        side: {"title": result.title, "file": str(result.path), "model": result.model, "version": result.version}
        for side, result in zip(("a", "b"), sides, strict=True)
    }
    return {
        **names,
        "levels": [dataclasses.asdict(level) for level in levels],
        "only_in_a": only_a,
        "only_in_b": only_b,
        "failed_only_in_b": new_failures,
        "slower_than_allowed": slower,
    }
