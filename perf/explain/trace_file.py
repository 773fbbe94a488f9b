"""Triton's trace files (``--trace-config mode=triton``), read into one record a request.

A file is a JSON array of small objects: one names a trace's model, version, request id and parent; each other adds a
timestamp to it. Triton writes through a buffer: while the server runs, and when it is ended hard, the file stops in
the middle of an object. What is whole is read.

Source: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/trace.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trace:
    """One request to one model: ``at_ns`` are its stamps by name, nanoseconds of the machine's monotonic clock.

    A member of an ensemble has the ensemble's trace as its ``parent``; it carries the same ``request_id``.
    """

    id: int
    model: str
    version: int
    request_id: str = ""
    parent: int | None = None
    at_ns: Mapping[str, int] = field(default_factory=dict)


def parse(text: str) -> tuple[Trace, ...]:
    """The traces of a file's text, in the order in which they appear."""
    named: dict[int, Mapping[str, Any]] = {}
    stamps: dict[int, dict[str, int]] = {}
    for row in _objects(text):
        number = int(row.get("id", -1))
        if "model_name" in row:
            named[number] = row
        for stamp in row.get("timestamps", ()):
            stamps.setdefault(number, {})[str(stamp["name"])] = int(stamp["ns"])
    return tuple(
        Trace(
            id=number,
            model=str(row["model_name"]),
            version=int(row.get("model_version", 0)),
            request_id=str(row.get("request_id", "")),
            parent=int(row["parent_id"]) if "parent_id" in row else None,
            at_ns=stamps.get(number, {}),
        )
        for number, row in named.items()
    )


def read(path: Path) -> tuple[Trace, ...]:
    """The traces in a server's trace file, and in the numbered ones that a ``log_frequency`` makes of it."""
    numbered = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    files = [p for p in (path, *sorted(numbered, key=lambda p: int(p.suffix[1:]))) if p.is_file()]
    return tuple(trace for file in files for trace in parse(file.read_text(encoding="utf-8", errors="replace")))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            row, position = decoder.raw_decode(text, position)
        except ValueError:
            return
        yield row
