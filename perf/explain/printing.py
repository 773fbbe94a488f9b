"""An explanation on the terminal, and as JSON with units in the keys."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from conch.terminal import console, print_table
from perf.explain.explain import Explanation
from perf.explain.waterfall import text_bar

FORMAT = 1


def show(found: Explanation) -> None:
    """Tables of where the time goes and of what formed, then what to change; on stderr."""
    where = found.breakdown
    whole_ms = max(where.measured_ms, where.sum_ms)
    rows: list[tuple[object, ...]] = [
        (part.label, f"{part.ms:9.3f}", f"{100 * part.ms / where.measured_ms:5.1f}", text_bar(part, whole_ms))
        for part in where.parts
    ]
    rows.append(("all parts", f"{where.sum_ms:9.3f}", f"{100 * where.sum_ms / where.measured_ms:5.1f}", ""))
    rows.append(("left over", f"{where.remainder_ms:9.3f}", f"{where.remainder_percent:5.1f}", ""))
    rows.append(("measured by the client", f"{where.measured_ms:9.3f}", "100.0", ""))
    of = f"{where.sampled} traced of {where.requests}" if where.source == "traces" else f"{where.requests}"
    print_table(
        ("where the time goes", "ms", "%", ""),
        rows,
        title=f"{found.model}: the mean of {of} requests, {found.concurrency} in flight over {found.protocol}, "
        f"{found.requests_per_second:.0f} req/s, p99 {found.percentiles_ms['p99']:.1f} ms",
    )
    for step, ms in where.beside_ms.items():
        console.print(f"  {step} ran beside this for {ms:.3f} ms, and nobody waited for it")
    print_table(
        ("step", "instances", "threads", "batching", "executions", "rows an execution", "batch sizes"),
        [
            (
                step.model,
                str(step.instances),
                "-" if step.threads is None else str(step.threads),
                "none" if step.delay_us is None else f"delay {step.delay_us} us",
                str(step.executions),
                "-" if step.average_batch is None else f"{step.average_batch:.2f}",
                ", ".join(f"{size}: {n}" for size, n in sorted(found.batch_sizes.get(step.model, {}).items())),
            )
            for step in found.evidence.steps
        ],
        title="\nwhat formed",
    )
    console.print("\nfindings" if found.findings else "\nno findings: nothing stands out")
    for number, finding in enumerate(found.findings, 1):
        console.print(f"{number}. {finding.what} ({finding.rule})", markup=False)
        console.print(f"   seen:   {finding.evidence}", markup=False)
        console.print(f"   change: {finding.change}", markup=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)


def save(found: Explanation, folder: Path) -> Path:
    """Write the document into a folder, under the model's name and the time; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.model}-{re.sub(r'[^0-9T]', '', found.at[:19])}.json"
    path.write_text(json.dumps(document(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def document(found: Explanation) -> dict[str, Any]:
    """The explanation as JSON-ready values."""
    where = found.breakdown
    parts = [{**dataclasses.asdict(part), "label": part.label} for part in where.parts]
    return {
        "format": FORMAT,
        "model": found.model,
        "at": found.at,
        "machine": dataclasses.asdict(found.machine),
        "steps": list(found.steps),
        "protocol": found.protocol,
        "concurrency": found.concurrency,
        "seconds": found.seconds,
        "requests": found.requests,
        "failures": found.failures,
        "requests_per_second": found.requests_per_second,
        "latency_ms": {"avg": where.measured_ms, **found.percentiles_ms},
        "server_ms": dict(found.server_ms),
        "source": where.source,
        "traced_requests": where.sampled if where.source == "traces" else 0,
        "parts": parts,
        "sum_ms": where.sum_ms,
        "remainder_ms": where.remainder_ms,
        "remainder_percent": where.remainder_percent,
        "beside_ms": dict(where.beside_ms),
        "evidence": [dataclasses.asdict(step) for step in found.evidence.steps],
        "padding": dataclasses.asdict(found.evidence.padding) if found.evidence.padding else None,
        "batch_sizes": {model: dict(sizes) for model, sizes in found.batch_sizes.items()},
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "notes": list(found.notes),
    }
