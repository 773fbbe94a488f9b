"""Which requests to explain with: a user's file, the golden requests of the version's manifest, or made-up ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.manifest import Manifest
from conch.tensor_spec import ModelSignature
from perf.explain.evidence import Padding
from server.rollout import answers
from server.rollout.answers import Request

MASK = "attention_mask"


@dataclass(frozen=True)
class Asked:
    """The requests, and where they are from."""

    requests: tuple[Request, ...]
    origin: str
    notes: tuple[str, ...] = ()


def choose(signature: ModelSignature, golden: Path | None, manifest: Manifest | None) -> Asked:
    """The best requests that there are. Raises: RepositoryError when the user's file cannot be read."""
    if golden is not None:
        return Asked(tuple(answers.from_golden(row, str(golden)) for row in answers.read_golden(golden)), str(golden))
    recorded = tuple(r for r in answers.recorded(manifest) if answers.suits(r, signature))
    if recorded:
        note = f"asked with the {len(recorded)} golden requests of its manifest; give more like your own: --golden FILE"
        return Asked(recorded, "golden requests of its manifest", (note,))
    note = "asked with one request made up from its signature: real ones (--golden FILE) may take another time"
    return Asked(answers.made_up(signature), "made up", (note,))


def padding(client: Any, model: str, steps: tuple[str, ...], requests: tuple[Request, ...]) -> Padding | None:
    """How full the rows are, by the attention masks: of the requests, or of what the first step makes of them.

    None where there is no mask to see. ``client`` is a `clients.Client`. Raises: ClientError.
    """
    first = steps[0] if steps else model
    masks = [request.inputs[MASK] for request in requests if MASK in request.inputs]
    if not masks and steps and any(t.name == MASK for t in client.metadata(first).signature.outputs):
        masks = [client.infer(first, dict(request.inputs))[MASK] for request in requests]
    if not masks:
        return None
    return Padding(
        step=first,
        tokens=int(sum(mask.sum() for mask in masks)),
        places=sum(mask.size for mask in masks),
        widths=tuple(mask.shape[-1] for mask in masks),
    )
