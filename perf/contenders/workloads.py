"""What is asked in the comparison: texts, rows and pictures, each as a body of JSON and as Triton's tensors."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ConchError
from conch.repository import Repository
from conch.tensor_spec import Array

Payload = Mapping[str, Any]

# optimization.graph.level of config.pbtxt -> what ONNX Runtime calls it; any other level is all of them.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
DEFAULT_LEVEL = "ORT_ENABLE_ALL"
WORDS = (
    "the river order was late again and nobody at the front desk could say when invoice number seven would arrive "
    "or whether our train tickets for Seoul had been refunded after that storm closed every bridge along the coast"
).split(" ")


@dataclass(frozen=True)
class Workload:
    """One kind of model and what it is asked.

    ``forms``: names in the repository -> the --pipeline that the sample is exported with. ``graphs``: names of the
    models that hold the ONNX file, all the same; the others serve the first one's. ``payloads()`` are made when they
    are needed: a value is a text, a number, or the bytes of a file.
    """

    name: str
    title: str
    sample: str
    forms: Mapping[str, str]
    graphs: tuple[str, ...]
    payloads: Callable[[], Sequence[Payload]]
    json_in: bool = True


def texts(count: int = 64, seed: int = 7) -> list[str]:
    """Made-up sentences of 5 to 40 words, the same in every run."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(5, 40))) for _ in range(count)]


def customers(count: int = 64, seed: int = 5) -> list[Payload]:
    """Made-up customers, with the columns of the churn sample."""
    chance = random.Random(seed)
    rows: list[Payload] = []
    for _ in range(count):
        tenure, monthly = float(chance.randint(1, 72)), round(chance.uniform(20, 120), 2)
        charges = {"monthly_charges": monthly, "total_charges": round(tenure * monthly, 2)}
        rows.append({"age": float(chance.randint(18, 84)), "tenure": tenure, **charges})
    return rows


@functools.cache
def pictures(count: int = 64, size: int = 200) -> tuple[bytes, ...]:
    """Held-out handwritten digits, as PNG files of size x size pixels."""
    from export.samples.digits import load_digits, to_png

    return tuple(to_png(picture, size) for picture in load_digits()[1].pictures[:count])


WORKLOADS = {
    "text": Workload(
        name="text",
        title="MiniLM int8, one text of 5 to 40 words a request",
        sample="embeddings",
        forms={"embeddings": "auto", "embeddings_ensemble": "ensemble"},
        graphs=("embeddings", "embeddings_ensemble_model"),
        payloads=lambda: [{"text": text} for text in texts()],
    ),
    "tabular": Workload(
        name="tabular",
        title="a scaler and a forest of 100 trees, one row of four columns a request",
        sample="churn",
        forms={"churn": "auto"},
        graphs=("churn",),
        payloads=customers,
    ),
    "image": Workload(
        name="image",
        title="a small convolutional network, one PNG of 200 x 200 pixels a request",
        sample="digits",
        forms={"digits_single": "single", "digits": "ensemble"},
        graphs=("digits_model", "digits_single"),
        payloads=lambda: [{"image": file} for file in pictures()],
        json_in=False,  # JSON carries text, and an encoded picture is none
    ),
}


def tensors(payload: Payload) -> dict[str, Array]:
    """A payload as Triton's inputs: BYTES [1, 1] or FP32 [1, 1] each."""
    return {
        name: np.array([[value]], np.float32 if isinstance(value, float) else object) for name, value in payload.items()
    }


def body(payload: Payload, *, picture_in_json: bool = False) -> tuple[bytes, dict[str, str]]:
    """A payload as the others take it, with its headers: a picture is the body itself, unless it must be JSON."""
    if "image" in payload and not picture_in_json:
        return payload["image"], {"Content-Type": "image/png"}
    return json.dumps(in_json(payload)).encode(), {"Content-Type": "application/json"}


def in_json(payload: Payload) -> dict[str, Any]:
    """A payload that JSON can carry: bytes become base64."""
    import base64

    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in payload.items()
    }


def handler_settings(workload: Workload, repository: Repository) -> dict[str, Any]:
    """What handler.py needs to do the work on the very files that ours serve; the graph level is our export's."""
    graph = workload.graphs[0]
    level = repository.config(graph).optimization.graph.level
    settings: dict[str, Any] = {
        "workload": workload.name,
        "model": str(_folder(repository, graph) / "model.onnx"),
        "graph_level": GRAPH_LEVELS.get(level, DEFAULT_LEVEL),
        "threads": 1,
    }
    if workload.name == "text":
        settings["tokenizer"] = str(_folder(repository, graph) / "tokenizer.json")
        settings["max_length"] = int(repository.config(graph).parameters["max_length"].string_value)
    elif workload.name == "tabular":
        settings["columns"] = list(workload.payloads()[0])
    else:
        processor = json.loads((_folder(repository, "digits_preprocess") / "processor.json").read_text())
        labels = (_folder(repository, "digits_postprocess") / "labels.txt").read_text(encoding="utf-8")
        settings["labels"] = labels.split("\n")[: len(labels.split())]
        settings["size"] = [processor["size"]["width"], processor["size"]["height"]]
        settings["mean"], settings["std"] = processor["image_mean"][0], processor["image_std"][0]
    return settings


def _folder(repository: Repository, name: str) -> Path:
    return repository.version_path(name, repository.latest(name))


def check_same_graph(workload: Workload, repository: Repository) -> None:
    """Raise ConchError unless all forms of the sample hold the same ONNX file: only then is the comparison fair."""
    digests = {}
    for name in workload.graphs:
        manifest = repository.manifest(name, repository.latest(name))
        digests[name] = manifest.files.get("model.onnx") if manifest is not None else None
    if len(set(digests.values())) > 1:
        raise ConchError(
            "the forms of the sample hold different graphs: they were exported at different times",
            where=repository.root,
            got=digests,
            fix=f"remove {repository.root}, and run again",
        )
