"""`make bench`: what is served here beside what people would run instead, on the same files and inputs, in one run.

\b
    python -m perf.compare_servers                                # text, tabular and image, against all
    python -m perf.compare_servers --workload text --contenders fastapi,bare,conch
    python -m perf.compare_servers --quick                        # does it run? Its figures say nothing

\b
framework   FastAPI with the framework called in the handler (transformers on torch, scikit-learn), fp32
fastapi     FastAPI + ONNX Runtime: async handlers, a worker a core, a thread a session; with ONNX Runtime's defaults,
            and with the graph level that our export chose for the file, where these differ
litserve, bentoml, ray
            the same handler in each, in an environment of its own, with and without batching
bare        processes that call ONNX Runtime, one a core, and no server: the limit (text)
conch       the exported model over HTTP with JSON in and out, HTTP with binary tensors, gRPC; as a single model, and
            as an ensemble

Of variants (batching, workers) the fastest of a trial takes part, which the result names. The servers take turns at
each number of requests in flight, another first in each round; ratios are taken within a round. A server whose waiting
processes take processor time, which is measured, or much memory (Ray, torch) is started for its turn and stopped. HTTP
and gRPC load come from the same loop, in one thread. All contenders must give the same answers before anything is
measured. Writes a table, a plot and all figures to perf/results/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console, print_json, print_table
from perf import result_files
from perf.contenders.field import KEYS, field
from perf.contenders.prepare import prepare
from perf.contenders.rounds import Outcome, Plan, run_workload
from perf.contenders.workloads import WORKLOADS
from perf.points import Machine, now, this_machine
from perf.result_files import RESULTS
from perf.standings import HEADER, markdown, rows
from perf.standings_plot import write_plot


def write_results(outcomes: Sequence[Outcome], plan: Plan, machine: Machine, path: Path) -> dict[str, Any]:
    """The table, the plot and the figures, beside each other; returns the figures."""
    standings = {outcome.workload.name: outcome.standings() for outcome in outcomes}
    titles = {outcome.workload.name: outcome.workload.title for outcome in outcomes}
    where = result_files.described(machine)
    how = f"medians of {plan.rounds} rounds of {plan.duration_s:g} s, min to max; ratios within a round"
    document: dict[str, Any] = {
        "at": now(),
        "machine": asdict(machine),
        "plan": asdict(plan),
        "workloads": {
            outcome.workload.name: {
                "title": outcome.workload.title,
                "versions": outcome.versions,
                "chosen": outcome.chosen,
                "trials_requests_per_second": outcome.trials,
                "skipped": outcome.skipped,
                "idle_cores": outcome.idle_cores,
                "standings": [asdict(standing) for standing in standings[outcome.workload.name]],
                "runs": [
                    {"server": name} | asdict(run)
                    for own in outcome.runs.values()
                    for name, runs in own.items()
                    for run in runs
                ],
            }
            for outcome in outcomes
        },
    }
    document = result_files.plain(document)
    lines = [f"{where}; {document['at']}", "", f"{how[0].upper()}{how[1:]}."]
    for outcome in outcomes:
        name = outcome.workload.name
        lines += ["", f"## {name}: {titles[name]}", "", *markdown(standings[name])]
        lines += ["", "; ".join(f"{who} {release}" for who, release in outcome.versions.items()) + "."]
        lines += [f"- left out: {who}: {why}" for who, why in outcome.skipped.items()]
    result_files.write(path, document, lines)
    write_plot(standings, titles, f"{where}\n{how}", path.with_suffix(".png"))
    return document


def _chosen(_: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Words separated by commas, each of the known ones; `all` is all of them."""
    known = tuple(WORKLOADS) if parameter.name == "workload" else KEYS
    words = known if value == "all" else tuple(word.strip() for word in value.split(","))
    if wrong := [word for word in words if word not in known]:
        raise click.BadParameter(f"{', '.join(wrong)}: choose from all, {', '.join(known)}")
    return words


def levels(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    """Numbers separated by commas, each at least 1."""
    try:
        given = tuple(int(word) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value}: give numbers, such as 1,8,32") from error
    if any(level < 1 for level in given):
        raise click.BadParameter(f"{value}: at least 1 each")
    return given


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--workload", callback=_chosen, default="all", show_default=True, help="text, tabular, image, or several."
)
@click.option("--contenders", "keys", callback=_chosen, default="all", show_default=True, help="By the names above.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=RESULTS / "repository",
    show_default=True,
    help="Where the samples are exported to, when they are not there; remove it to export again.",
)
@click.option(
    "--connections", callback=levels, default="1,8,32", show_default=True, help="Requests in flight, comma-separated."
)
@click.option("--duration", "duration_s", default=2.5, show_default=True, help="Seconds a measurement.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often the servers take turns."
)
@click.option("--quick", is_flag=True, help="One round of short measurements, to see that it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures on stdout as JSON.")
def main(
    workload: tuple[str, ...],
    keys: tuple[str, ...],
    repository: Path,
    connections: tuple[int, ...],
    duration_s: float,
    rounds: int,
    quick: bool,
    as_json: bool,
) -> None:
    """Compare what is served with what people would run instead."""
    plan = Plan(connections, duration_s, 0.5, rounds, trial_s=1.0)
    if quick:
        plan = Plan(connections, 0.5, 0.2, 1, trial_s=0.3)
    keys = keys if "conch" in keys else (*keys, "conch")  # its answers are what the others' are held to
    store = Repository(repository)
    outcomes = []
    try:
        for name in workload:
            prepare(WORKLOADS[name], store)
            entries = field(WORKLOADS[name], store, RESULTS / "environments", keys)
            outcomes.append(run_workload(WORKLOADS[name], entries, plan))
    except ConchError as error:
        raise click.ClickException(str(error)) from error
    path = RESULTS / ("compare_servers_quick" if quick else "compare_servers")
    document = write_results(outcomes, plan, this_machine("Triton 2.51.0, embedded"), path)
    for outcome in outcomes:
        print_table(HEADER, rows(outcome.standings()), title=f"\n{outcome.workload.name}: {outcome.workload.title}")
        for who, why in outcome.skipped.items():
            console.print(f"left out: {who}: {why}", markup=False)
    console.print(f"\ntable, plot and figures: {path}.{{md,png,json}}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    main()
