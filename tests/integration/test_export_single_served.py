"""Pipelines exported as one model, in the real Triton, beside the ensembles of the same parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import Client
from conch.errors import ClientError
from conch.manifest import tensor_from_json
from conch.repository import Repository
from export import steps
from export.from_huggingface import load
from export.from_huggingface_samples import TEXTS, read_images
from export.options import ExportOptions
from export.quiet import quiet
from export.report import Report
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.fakes.tiny_checkpoints import LABELS, TAGS, labels, write_image_model, write_text_model

pytestmark = pytest.mark.integration

# Three parts; the text goes to the last of them too; no text.
CASES = {
    "text-classification": ("Bert", "ForSequenceClassification", labels(LABELS)),
    "token-classification": ("Bert", "ForTokenClassification", labels(TAGS)),
    "image-classification": ("ViT", "", {}),
}
INPUTS: dict[str, tuple[str, list[Any]]] = {
    "text-classification": ("text", list(TEXTS)),
    "token-classification": ("text", list(TEXTS)),
    "image-classification": ("image", list(read_images(None))),
}


@dataclass(frozen=True)
class Served:
    """Both forms of each task's pipeline in one server: TASK is the ensemble, TASK_single the one model."""

    urls: dict[str, str]
    repository: Path
    reports: dict[str, Report]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    work = tmp_path_factory.mktemp("single")
    reports = {}
    for task, (family, head, config) in CASES.items():
        with quiet():
            is_image = task == "image-classification"
            folder = work / task
            write_image_model(folder, family) if is_image else write_text_model(folder, family, head, **config)
        ensemble = ExportOptions(name=task, repository=work / "repository", trial=False)
        # One server tries them all below; the trial load is tested with one single model.
        single = replace(ensemble, name=f"{task}_single", pipeline="single", trial=task == "text-classification")
        source = load(str(folder), task, ensemble)
        for options in (ensemble, single):
            reports[options.name] = steps.run(source, options)
    server = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(work / "repository", server) as triton:
        yield Served({"http": triton.http_url, "grpc": triton.grpc_url}, work / "repository", reports)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("task", CASES)
def test_it_answers_bit_for_bit_as_the_ensemble(served: Served, task: str, protocol: str) -> None:
    name, values = INPUTS[task]
    with Client(served.urls[protocol]) as client:
        ensemble, single = (
            [client.infer(model, {name: np.array([[value]], dtype=object)}) for value in values]
            for model in (task, f"{task}_single")
        )
    for due, got in zip(ensemble, single, strict=True):
        assert set(got) == set(due)
        assert all(np.array_equal(got[output], due[output]) for output in due)
    assert len({str({output: array.tolist() for output, array in answer.items()}) for answer in single}) > 1


@pytest.mark.parametrize("task", CASES)
def test_many_rows_get_the_answers_that_each_gets_alone(served: Served, task: str) -> None:
    name, values = INPUTS[task]
    with Client(served.urls["grpc"]) as client:
        alone = [client.infer(f"{task}_single", {name: np.array([[v]], dtype=object)}) for v in values[:5]]
        together = client.infer(f"{task}_single", {name: np.array([[v] for v in values[:5]], dtype=object)})
    for output, array in together.items():
        np.testing.assert_array_equal(array, np.concatenate([answer[output] for answer in alone]))


def test_the_trial_load_asked_the_one_model(served: Served) -> None:
    report = served.reports["text-classification_single"]
    assert list(report.models) == ["text-classification_single"]
    assert {row.output for row in report.served_parity} == {"label", "score", "scores"}
    manifest = Repository(served.repository).manifest("text-classification_single", 1)
    assert manifest is not None
    assert {row.output for row in manifest.parity} == {"logits", "label", "score", "scores"}
    assert any(package.startswith("tokenizers") for package in manifest.packages)
    with Client(served.urls["grpc"]) as client:
        for golden in manifest.golden:
            inputs = {name: tensor_from_json(tensor) for name, tensor in golden.inputs.items()}
            got = client.infer("text-classification_single", inputs)
            np.testing.assert_allclose(got["scores"], tensor_from_json(golden.outputs["scores"]), atol=1e-6)
    assert manifest.golden


def test_a_bad_request_fails_alone_among_many(served: Served) -> None:
    values = [TEXTS[3], b"\xff", TEXTS[4], *TEXTS[:9]] * 4
    with Client(served.urls["grpc"]) as client, ThreadPoolExecutor(8) as pool:

        def ask(value: Any) -> str:
            try:
                answer = client.infer("text-classification_single", {"text": np.array([[value]], dtype=object)})
            except ClientError as error:
                return str(error.got)
            return json.dumps(str(answer["label"]))

        answers = list(pool.map(ask, values))
    failed = [index for index, value in enumerate(values) if value == b"\xff"]
    assert [index for index, answer in enumerate(answers) if "not UTF-8 at index 0" in answer] == failed
    assert all(answers[index].startswith('"') for index in range(len(values)) if index not in failed)
