"""The samples `embeddings` (the real MiniLM) and `digits`, exported as in `make demo` and asked in the real Triton."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import Client
from export import steps
from export.from_huggingface import load
from export.from_huggingface_samples import TEXTS
from export.options import ExportOptions
from export.report import Report
from export.samples import digits, embeddings, sample
from server.embedded import EmbeddedServer
from server.options import ServerOptions

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Served:
    client: Client
    reports: dict[str, Report]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("samples") / "repository"
    reports = {}
    for name in ("embeddings", "digits"):
        module = sample(name)
        options = replace(module.options(repository), trial=False)
        reports[name] = steps.run(module.source(options), options)
    server = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(repository, server) as triton, Client(triton.grpc_url) as client:
        yield Served(client, reports)


def test_served_embeddings_point_where_pytorch_s_do(served: Served) -> None:
    folder, _ = embeddings.find_model()
    source = load(str(folder), "embeddings", ExportOptions(name="unused"))
    assert source.pipeline is not None
    assert source.pipeline.reference is not None
    requests = source.pipeline.requests
    due = np.concatenate([source.pipeline.reference(request)["embedding"] for request in requests])
    got = np.concatenate([served.client.infer("embeddings", request)["embedding"] for request in requests])
    cosines = (due * got).sum(axis=1)  # both have length 1
    assert got.shape == (len(requests), 384)
    assert cosines.min() > 0.95
    assert cosines.mean() > 0.98


def test_embeddings_put_like_beside_like(served: Served) -> None:
    vectors = [served.client.infer("embeddings", question.inputs)["embedding"][0] for question in embeddings.QUESTIONS]
    cat, kitten, revenue = vectors
    assert cat @ kitten > 0.6
    assert cat @ revenue < 0.3


def test_an_embedding_does_not_depend_on_who_else_asks(served: Served) -> None:
    due = served.client.infer("embeddings", text=[[TEXTS[3]]])["embedding"]
    many = served.client.infer_many("embeddings", [{"text": [[text]]} for text in TEXTS * 4])
    for index, answer in enumerate(many):
        if index % len(TEXTS) == 3:
            np.testing.assert_array_equal(answer["embedding"], due)


@pytest.mark.parametrize("question", digits.QUESTIONS, ids=lambda question: question.text)
def test_digits_are_read(served: Served, question: Any) -> None:
    answer = served.client.infer("digits", question.inputs)
    label = answer["label"][0, 0]
    assert (label.decode() if isinstance(label, bytes) else label) == question.expected


def test_served_digits_are_right_as_often_as_the_report_says(served: Served) -> None:
    _, held = digits.load_digits()
    files = np.array([[digits.to_png(picture)] for picture in held.pictures], dtype=object)
    parts = [files[start : start + 32] for start in range(0, len(files), 32)]
    answers = [served.client.infer("digits", image=part)["scores"].argmax(axis=1) for part in parts]
    accuracy = float((np.concatenate(answers) == held.answers).mean())
    assert accuracy > 0.97
    assert accuracy == pytest.approx(served.reports["digits"].source["held_out_accuracy"], abs=0.005)
    assert any("held-out digits" in note for note in served.reports["digits"].notes)


def test_the_digits_are_served_by_the_pytorch_backend(served: Served) -> None:
    path: Path = served.reports["digits"].repository / "digits_model"
    assert 'backend: "pytorch"' in (path / "config.pbtxt").read_text()
    assert (path / "1" / "model.pt").is_file()
