"""The report's HTML page: one file that asks for nothing outside itself, readable in light and in dark.

What comes from a result (names, notes, configs, errors) is escaped; a content policy forbids scripts and requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from perf.report.plots import Plot, as_svg
from perf.report.results import PERCENTILES, SERVER_PARTS, Failure, Result, Row, Series, level

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --soft: #f3f5f7; --line: #d5dae0; --warn: #9a5b00;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --paper: #14171b; --soft: #1d2126; --line: #363c44;
  --warn: #f0b45a; --bad: #ff8a80; } }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 1180px; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; } figcaption, .dim { opacity: .78; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .84rem; }
th, td { padding: .22rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { background: var(--soft); position: sticky; top: 0; vertical-align: bottom; }
td.words, th.words { text-align: left; } td.why { white-space: normal; min-width: 16rem; text-align: left; }
tr.unstable td { color: var(--warn); } tr.failed td { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .3rem 0; } dt { opacity: .78; }
dd { margin: 0; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .82rem; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(results: Sequence[Result], series: Sequence[Series], plots: Sequence[Plot]) -> str:
    """The whole page."""
    models = list(dict.fromkeys(result.model for result in results))
    title = f"{', '.join(models)}: what was measured"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _summary(results),
        *(_figure(plot, series) for plot in plots),
        _table(results),
        *(_result(result) for result in results),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(results: Sequence[Result]) -> str:
    rows = [row for result in results for row in result.rows]
    lines = [f"{len(rows)} points of {len(results)} {'result' if len(results) == 1 else 'results'}."]
    trusted = [row for row in rows if row.point.stable]
    if trusted:
        best = max(trusted, key=lambda row: row.point.inferences_per_second)
        p99 = f", p99 {number(best.point.latency_ms['p99'])} ms" if "p99" in best.point.latency_ms else ""
        rate = number(best.point.inferences_per_second)
        lines.append(f"Most served: {rate} inferences/s{p99}, with {_where(best)}.")
    unstable = len(rows) - len(trusted)
    if unstable:
        lines.append(f"{unstable} unstable: not to be trusted, and marked.")
    failed = sum(len(result.failures) for result in results)
    if failed:
        lines.append(f"{failed} failed: at the end of the table.")
    lines += [f"{result.title}: {result.unfinished}." for result in results if result.unfinished]
    return f'<p class="dim">{escape(" ".join(lines))}</p>'


def _where(row: Row) -> str:
    instances = "" if row.instances is None else f"instances {row.instances}, "
    return f"{instances}batch {row.point.load.batch_size}, {row.point.load.label} ({row.result})"


def _figure(plot: Plot, series: Sequence[Series]) -> str:
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>"
    return f"<h2>{escape(plot.title)}</h2>\n<figure>{caption}{as_svg(plot, series)}</figure>"


_HEADER = (
    "result",
    "instances",
    "batch",
    "load",
    "protocol",
    "requests/s",
    "inferences/s",
    "mean ms",
    *(f"{percentile} ms" for percentile in PERCENTILES),
    "queue ms",
    "input ms",
    "infer ms",
    "output ms",
    "network and client ms",
    "rows an execution",
    "requests",
    "failures",
    "",
)
_WORDS = {"result", "load", "protocol", ""}


def _table(results: Sequence[Result]) -> str:
    heads = "".join(f"<th{_words(name)}>{escape(name or 'remarks')}</th>" for name in _HEADER)
    body = [_row(row) for result in results for row in result.rows]
    body += [_failure(failure) for result in results for failure in result.failures]
    rows = "\n".join(body)
    return (
        '<h2>All points</h2>\n<div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _words(name: str) -> str:
    return ' class="words"' if name in _WORDS else ""


def _row(row: Row) -> str:
    point, load = row.point, row.point.load
    shared = "" if load.shared_memory == "none" else f", {load.shared_memory} shared memory"
    remarks = "; ".join((*(("unstable",) if not point.stable else ()), *point.warnings))
    cells = [
        row.result,
        "as configured" if row.instances is None else str(row.instances),
        str(load.batch_size),
        level(load) + (" in flight" if load.concurrency is not None else f" {load.arrivals}"),
        load.protocol + (", streaming" if load.streaming else "") + shared,
        number(point.requests_per_second),
        number(point.inferences_per_second),
        *(number(point.latency_ms.get(name)) for name in ("avg", *PERCENTILES)),
        *(number(point.server_ms.get(name)) for name in SERVER_PARTS),
        number(row.network_and_client_ms),
        number(point.average_batch),
        str(point.requests),
        str(point.failures),
    ]
    filled = "".join(f"<td{_words(name)}>{escape(cell)}</td>" for name, cell in zip(_HEADER, cells, strict=False))
    mark = "" if point.stable else ' class="unstable"'
    return f'<tr{mark}>{filled}<td class="why">{escape(remarks)}</td></tr>'


def _failure(failure: Failure) -> str:
    what = f'<td class="words">{escape(failure.result)}</td>'
    why = f'<td class="why" colspan="{len(_HEADER) - 1}">{escape(failure.what)} failed: {escape(failure.error)}</td>'
    return f'<tr class="failed">{what}{why}</tr>'


def _result(result: Result) -> str:
    machine = result.machine
    facts = {
        "model": f"{result.model} {result.version}".strip(),
        "measured": f"{result.at} (UTC)",
        "machine": f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB",
        "system": f"{machine.os}, Python {machine.python}, Triton {machine.triton}",
        "file": result.path.name,
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    configs = "".join(
        f"<details><summary>{escape(heading)}</summary><pre>{escape(text)}</pre></details>"
        for heading, text in result.configs
    )
    heading = f"<h2>{escape(result.title)}</h2>\n<dl>{listed}</dl>"
    return heading + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "") + configs


def number(value: float | None) -> str:
    """A figure as a person reads it: three digits that matter, none behind the point from 100 up; "" when unknown."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
