"""What a model's version folders say beside its signature: the labels of its answers, and a real request as an example.

Only where the gateway sees the repository. Version folders are immutable, so what was read once is kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from conch.manifest import MANIFEST_FILE, tensor_from_json
from gateway.catalogue import ServedModel

EXAMPLE_BYTES = 2048


@dataclass(frozen=True)
class Assets:
    """``labels`` in the order of the scores, ``others`` the label of answers under every threshold.

    ``example`` is a golden request by input name, its arrays as nested lists, with their batch dimension.
    """

    labels: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)


def assets_of(repository: Path | None, model: ServedModel) -> Assets:
    """What the folders of the version that serves say; of an ensemble, those of its steps too."""
    if repository is None:
        return Assets()
    own = _read(repository / model.name / model.version)
    members = [_read(repository / step.model / _version(repository, model, step.version)) for step in model.steps]
    labelled = next((found for found in (own, *members) if found.labels), Assets())
    return Assets(labelled.labels, labelled.others, own.example)


def _version(repository: Path, model: ServedModel, version: str) -> str:
    """A step's version; the parts of a pipeline carry the pipeline's own, where the step asks for the latest."""
    return version if version.isdigit() else model.version


@functools.lru_cache(maxsize=1024)
def _read(folder: Path) -> Assets:
    labels = _lines(folder / "labels.txt")
    rules = _text(folder / "rules.yaml")
    others: tuple[str, ...] = ()
    if labels and rules:
        try:
            # BaseLoader: a label such as `no` stays text.
            others = (str(yaml.load(rules, Loader=yaml.BaseLoader)["others"]),)
        except (yaml.YAMLError, KeyError, TypeError):
            others = ()
    return Assets(labels, others, _example(folder / MANIFEST_FILE))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(line.rstrip("\r") for line in _text(path).rstrip("\r\n").split("\n") if line.strip())


def _example(manifest: Path) -> dict[str, Any]:
    """The first golden request; nothing where there is none, or it is large."""
    try:
        golden = json.loads(_text(manifest) or "{}").get("golden") or [{}]
        inputs = golden[0].get("inputs", {})
        row = {name: tensor_from_json(tensor).tolist() for name, tensor in inputs.items()}
        return row if len(json.dumps(row)) <= EXAMPLE_BYTES else {}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}
