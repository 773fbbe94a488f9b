"""Every task of `conch export huggingface`, served by the real Triton, beside transformers' own answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import Client
from conch.manifest import Manifest
from conch.tensor_spec import Array
from export import steps
from export.from_huggingface import load
from export.from_huggingface_samples import PAIRS, TEXTS, read_images
from export.options import ExportOptions
from export.quiet import quiet
from export.report import Report
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.fakes.tiny_checkpoints import LABELS, POSITIONS, TAGS, labels, write_image_model, write_text_model

pytestmark = pytest.mark.integration

CASES = {
    "embeddings": ("MPNet", "Model", {}),
    "text-classification": ("Bert", "ForSequenceClassification", labels(LABELS)),
    "token-classification": ("Roberta", "ForTokenClassification", labels(TAGS)),
    "rerank": ("XLMRoberta", "ForSequenceClassification", {"num_labels": 1}),
    "image-classification": ("ViT", "", {}),
}
CUT = {"truncation": True, "max_length": POSITIONS}
RULES = "others: nobody knows\nthreshold: 1.0\n"


@dataclass(frozen=True)
class Served:
    """All tasks' pipelines in one server, with the folders of the checkpoints they were made from."""

    client: Client
    repository: Path
    checkpoints: dict[str, Path]
    reports: dict[str, Report]

    def ask(self, task: str, **tensors: Any) -> dict[str, Array]:
        return self.client.infer(task, **tensors)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    work = tmp_path_factory.mktemp("huggingface")
    checkpoints, reports = {}, {}
    for task, (family, head, config) in CASES.items():
        folder = work / task
        with quiet():
            is_image = task == "image-classification"
            write_image_model(folder, family) if is_image else write_text_model(folder, family, head, **config)
        checkpoints[task] = folder
        # One server tries them all below; the trial load is tested with the first task alone.
        options = ExportOptions(name=task, repository=work / "repository", trial=task == "embeddings")
        reports[task] = steps.run(load(str(folder), task, options), options)
    with_rules = replace(options, name="with_rules", rules=work / "rules.yaml")
    (work / "rules.yaml").write_text(RULES)
    steps.run(load(str(folder), task, with_rules), with_rules)
    server = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(work / "repository", server) as triton, Client(triton.grpc_url) as client:
        yield Served(client, work / "repository", checkpoints, reports)


def words(array: Array) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


def test_the_trial_load_compared_the_public_answers(served: Served) -> None:
    (row,) = served.reports["embeddings"].served_parity
    assert row.output == "embedding"
    assert row.samples > 5


def test_embeddings_are_mean_vectors_of_length_one(served: Served) -> None:
    import torch
    import transformers

    folder = served.checkpoints["embeddings"]
    with quiet(), torch.no_grad():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        encoded = tokenizer(list(TEXTS), padding=True, return_tensors="pt", **CUT)
        states = transformers.AutoModel.from_pretrained(folder)(**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None]
        due = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    alone = np.concatenate([served.ask("embeddings", text=[[text]])["embedding"] for text in TEXTS])
    together = served.ask("embeddings", text=[[text] for text in TEXTS])["embedding"]
    np.testing.assert_allclose(alone, due, atol=1e-5)
    np.testing.assert_allclose(together, due, atol=1e-5)
    assert np.ptp(due, axis=0).max() > 0.05


def test_texts_get_the_labels_of_transformers_pipeline(served: Served) -> None:
    import transformers

    with quiet():
        pipeline = transformers.pipeline("text-classification", model=str(served.checkpoints["text-classification"]))
        due = [pipeline(text, **CUT)[0] for text in TEXTS]
    got = served.ask("text-classification", text=[[text] for text in TEXTS])
    assert words(got["label"]) == [row["label"] for row in due]
    np.testing.assert_allclose(got["score"].ravel(), [row["score"] for row in due], atol=1e-5)
    np.testing.assert_allclose(got["scores"].sum(axis=1), 1, atol=1e-5)
    assert len(set(words(got["label"]))) > 1


def test_entities_are_those_of_transformers_pipeline(served: Served) -> None:
    import transformers

    folder = served.checkpoints["token-classification"]
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=POSITIONS)
        pipeline = transformers.pipeline(
            "token-classification", model=str(folder), tokenizer=tokenizer, aggregation_strategy="simple"
        )
        found = [pipeline(text) for text in TEXTS]
    got = [json.loads(words(served.ask("token-classification", text=[[text]])["entities"])[0]) for text in TEXTS]
    for text, due_row, got_row in zip(TEXTS, found, got, strict=True):
        spans = [(r["entity_group"], text[r["start"] : r["end"]].strip(), r["score"]) for r in due_row]
        due = [span for span in spans if span[1]]
        assert [(r["label"], r["text"]) for r in got_row] == [span[:2] for span in due]
        np.testing.assert_allclose([r["score"] for r in got_row], [span[2] for span in due], atol=1e-5)
        assert all(text[r["start"] : r["end"]] == r["text"] for r in got_row)
    assert sum(map(len, got)) > 20


def test_pairs_get_the_scores_of_transformers(served: Served) -> None:
    import transformers

    with quiet():
        pipeline = transformers.pipeline("text-classification", model=str(served.checkpoints["rerank"]))
        due = [pipeline({"text": a, "text_pair": b}, **CUT)["score"] for a, b in PAIRS]
    got = served.ask("rerank", text=[[a] for a, _ in PAIRS], text_pair=[[b] for _, b in PAIRS])["score"]
    assert got.shape == (len(PAIRS), 1)
    np.testing.assert_allclose(got.ravel(), due, atol=1e-5)
    assert np.ptp(due) > 0.01


def test_images_get_the_labels_of_transformers_pipeline(served: Served) -> None:
    import io

    import transformers
    from PIL import Image
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    folder, files = served.checkpoints["image-classification"], read_images(None)
    with quiet():
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        pipeline = transformers.pipeline("image-classification", model=str(folder), image_processor=processor)
        due = [pipeline(Image.open(io.BytesIO(file)).convert("RGB"), top_k=3) for file in files]
    got = served.ask("image-classification", image=np.array([[file] for file in files], dtype=object))
    assert words(got["label"]) == [rows[0]["label"] for rows in due]
    by_label = [{row["label"]: row["score"] for row in rows} for rows in due]
    np.testing.assert_allclose(got["scores"], [[row[label] for label in LABELS] for row in by_label], atol=1e-5)


def test_rules_change_the_label_and_not_the_scores(served: Served) -> None:
    image = np.array([[read_images(None)[0]]], dtype=object)
    plain, ruled = served.ask("image-classification", image=image), served.ask("with_rules", image=image)
    assert words(ruled["label"]) == ["nobody knows"]
    np.testing.assert_allclose(ruled["scores"], plain["scores"], atol=1e-6)


@pytest.mark.parametrize("task", CASES)
def test_the_manifest_says_where_it_comes_from(served: Served, task: str) -> None:
    folder = served.repository / f"{task}_model" / "1"
    manifest = Manifest.read(folder / "manifest.json")
    assert manifest.source["task"] == task
    assert manifest.source["model"] == str(served.checkpoints[task])
    assert manifest.ir_version is not None
    assert manifest.ir_version <= 10
    before = Manifest.read(served.repository / f"{task}_preprocess" / "1" / "manifest.json")
    assert any(package.startswith(("tokenizers", "pillow")) for package in before.packages)
