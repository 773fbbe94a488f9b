"""`conch repo lint`: print what the rules find, mend what can be mended, and exit so that CI understands.

What the command needs is imported when it runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conch.errors import ConfigError

if TYPE_CHECKING:
    from conch.lint.check import Report
    from conch.lint.finding import Finding
    from conch.lint.fix import FixReport
    from conch.lint.options import Off

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option("--target", metavar="RELEASE", help="Triton release that is to serve, e.g. 24.10.  [default: 24.10]")
@click.option("--fix", "mend", is_flag=True, help="Mend what can be mended, then lint again.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@click.option("--off", "offs", multiple=True, metavar="RULE=REASON", help="Switch a rule off; may be repeated.")
@click.option("--config", type=click.Path(path_type=Path), help="Options file in place of the one in the repository.")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the target, for the rules on instances and threads.")
@click.option("--gpu/--no-gpu", default=None, help="Whether the target has a GPU.")
@click.option("--latency-ms", type=click.FloatRange(0, min_open=True), help="Latency budget that queues must keep.")
@click.option("--shm-mb", type=click.IntRange(1), help="Size of the target's /dev/shm.")
@click.option("--quick", is_flag=True, help="Do not hash the files of published versions (R09).")
@click.option("--explain", metavar="RULE", help="Print why a rule is there and how to mend it; all for a list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def lint(
    ctx: click.Context,
    paths: tuple[Path, ...],
    target: str | None,
    mend: bool,
    strict: bool,
    offs: tuple[str, ...],
    config: Path | None,
    cpus: int | None,
    gpu: bool | None,
    latency_ms: float | None,
    shm_mb: int | None,
    quick: bool,
    explain: str | None,
    as_json: bool,
) -> None:
    """Check a repository before Triton does: no server, no GPU, only its files.

    PATH is a repository, a model's folder or a version's; several repositories are checked as Triton would serve them
    together.  [default: model_repository]

    Exits with 1 when there are errors (with --strict: or warnings). Rules are switched off by --off, by an entry in
    conch-lint.yaml in the repository or beside it, or by a comment in a config.pbtxt; each needs a reason:

    \b
      # conch-lint: off R21 because clients send one shape only

    \b
    Examples:
      conch repo lint
      conch repo lint models/ more_models/ --target 24.08 --strict
      conch repo lint model_repository/spam --fix
      conch repo lint --off R17="said in the README" --json | jq '.findings[] | {rule, file, message}'
      conch repo lint --explain R10
    """
    if explain is not None:
        _explain(explain, as_json)
        return
    from conch.lint.check import check
    from conch.lint.fix import fix
    from conch.lint.options import LintOptions, merged, read_options

    options = LintOptions(
        target=target,
        cpus=cpus,
        gpu=gpu,
        latency_budget_ms=latency_ms,
        shm_bytes=shm_mb * 2**20 if shm_mb else None,
        digests=not quick,
        off=tuple(_off(text) for text in offs),
        find_file=config is None,
    )
    if config is not None:
        options = merged(options, read_options(config))
    chosen = paths or (Path("model_repository"),)
    if mend:
        fixed = fix(chosen, options)
        report = fixed.after
    else:
        fixed, report = None, check(chosen, options)
    if as_json:
        from conch.terminal import print_json

        print_json(_document(report, fixed))
    else:
        _print(report, fixed)
    if report.errors or (strict and report.warnings):
        ctx.exit(1)


def _off(text: str) -> Off:
    from conch.lint.options import off

    number, equals, reason = text.partition("=")
    if not equals:
        raise ConfigError(
            "--off needs a rule and a reason", got=text, fix=f'--off {number or "R21"}="why it does not apply here"'
        )
    return off(number, reason, where="--off")


def _print(report: Report, fixed: FixReport | None) -> None:
    """Findings grouped by model, then what was mended and what is switched off, then one line that sums up."""
    from rich.text import Text

    from conch.terminal import console

    model = None
    for finding in report.findings:
        if finding.model != model:
            model = finding.model
            console.print(Text(f"\n{model or 'repository'}", style="bold"))
        _print_finding(finding)
    if fixed is not None:
        console.print()
        for done in fixed.mended:
            lost = "" if done.comments_kept else " (the file was written anew: look for comments that are gone)"
            console.print(Text(f"mended   {', '.join(done.rules)} {done.file}: {done.what}{lost}", style="green"))
        for failed in fixed.not_mended:
            finding = failed.finding
            console.print(Text(f"not mended {finding.rule} {finding.file}: {failed.reason}", style="red"))
    if report.silenced:
        console.print()
    for silenced in report.silenced:
        finding, reason = silenced.finding, silenced.off.reason
        place = finding.place or Path(finding.file).name
        console.print(Text(f"off      {finding.rule} {finding.model} {place}: {reason}", style="dim"))
    console.print()
    console.print(Text(_summary(report), style="bold"))


def _print_finding(finding: Finding) -> None:
    from rich.text import Text

    from conch.terminal import console

    head = Text.assemble(
        (f"  {finding.severity:<8}", _COLOURS[finding.severity]),
        (f" {finding.rule} ", "bold"),
        finding.message,
        (" (--fix mends it)" if finding.fixable else "", "dim"),
    )
    console.print(head)
    where = finding.file + (f"  {finding.place}" if finding.place else "")
    for name in ("where", "got", "expected", "fix"):
        value = where if name == "where" else getattr(finding, name)
        if value:
            console.print(Text(f"           {name + ':':<10}{value}", overflow="fold"))


def _summary(report: Report) -> str:
    counts = [_counted(len(report.of(kind)), kind) for kind in ("error", "warning", "note")]
    fixable = sum(f.fixable for f in report.findings)
    mendable = f", {fixable} of them mended by --fix" if fixable else ""
    off = f", {_counted(len(report.silenced), 'finding')} switched off" if report.silenced else ""
    looked_at = f"{_counted(report.models, 'model')}, {_counted(report.versions, 'version')}"
    return f"{', '.join(counts)}{mendable}{off}: {looked_at}, for {report.target}, in {report.seconds:.1f} s"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _as_json(finding: Finding) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(finding) if f.name not in ("mend", "folder")]
    return {name: getattr(finding, name) for name in names}


def _document(report: Report, fixed: FixReport | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": 1,
        "target": report.target,
        "models": report.models,
        "versions": report.versions,
        "seconds": round(report.seconds, 3),
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "notes": len(report.of("note")),
        "findings": [_as_json(f) for f in report.findings],
        "off": [{**_as_json(s.finding), "reason": s.off.reason, "by": s.off.where} for s in report.silenced],
    }
    if fixed is not None:
        document["mended"] = [dataclasses.asdict(m) for m in fixed.mended]
        document["not_mended"] = [{**_as_json(n.finding), "reason": n.reason} for n in fixed.not_mended]
    return document


def _explain(number: str, as_json: bool) -> None:
    """The rule's own words: why it is there, how to mend it."""
    from conch.lint.rules import all_rules, rule_named
    from conch.terminal import print_json, print_table

    rules = all_rules() if number == "all" else (rule_named(number),)
    if as_json:
        names = ("id", "severity", "title", "fixable", "doc")
        print_json([{name: getattr(rule, name) for name in names} for rule in rules])
    elif number == "all":
        print_table(("rule", "severity", "--fix", "what"), [_row(rule) for rule in rules])
    else:
        rule = rules[0]
        click.echo(f"{rule.id} ({rule.severity}{', --fix mends it' if rule.fixable else ''}): {rule.title}\n")
        click.echo(rule.doc)


def _row(rule: Any) -> tuple[str, str, str, str]:
    return rule.id, rule.severity, "yes" if rule.fixable else "", rule.title
