"""Each architecture through its own task: the written file against torch, at every kind of length and batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conch.releases import DEFAULT_TARGET, release
from conch.tensor_spec import Array
from export import check_graph, parity
from export.from_huggingface import load
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source
from tests.fakes.tiny_checkpoints import LABELS, POSITIONS, TAGS, labels, write_image_model, write_text_model

OPTIONS = ExportOptions(name="m", max_batch_size=8)


@dataclass(frozen=True)
class Converted:
    """A source and the function that runs the file written from it."""

    source: Source
    run: Callable[[dict[str, Array]], dict[str, Array]]


def convert(folder: Path, task: str, work: Path) -> Converted:
    source = load(str(folder), task, OPTIONS)
    file = work / "model.onnx"
    source.write(file, OPTIONS)
    return Converted(source, check_graph.check(file, source, release(DEFAULT_TARGET)).run)


TEXT_CASES = {
    "bert": ("Bert", "Model", "embeddings", {}),
    "roberta": ("Roberta", "ForSequenceClassification", "text-classification", labels(LABELS)),
    "xlm-roberta": ("XLMRoberta", "ForTokenClassification", "token-classification", labels(TAGS)),
    "mpnet": ("MPNet", "Model", "embeddings", {}),
    "distilbert": ("DistilBert", "ForSequenceClassification", "rerank", {"num_labels": 1}),
}


@pytest.fixture(scope="module", params=TEXT_CASES)
def text_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    family, head, task, config = TEXT_CASES[request.param]
    work = tmp_path_factory.mktemp(request.param)
    with quiet():
        folder = write_text_model(work / "checkpoint", family, head, **config)
    return convert(folder, task, work)


@pytest.fixture(scope="module", params=["ViT", "ConvNext", "ResNet"])
def image_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    work = tmp_path_factory.mktemp(request.param)
    with quiet():
        folder = write_image_model(work / "checkpoint", request.param)
    return convert(folder, "image-classification", work)


def test_a_text_model_answers_as_torch_does_on_its_samples(text_model: Converted) -> None:
    source = text_model.source
    rows = parity.compare(text_model.run, source.reference, source.samples, source.signature)
    assert [row.samples for row in rows] == [len(source.samples)]


@pytest.mark.parametrize("length", [1, 2, 3, 17, POSITIONS - 1, POSITIONS])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_text_model_takes_every_length_and_batch(text_model: Converted, length: int, batch: int) -> None:
    generator = np.random.default_rng(length * 10 + batch)
    inputs = {spec.name: np.zeros((batch, length), dtype=np.int64) for spec in text_model.source.signature.inputs}
    inputs["input_ids"] = generator.integers(5, 90, (batch, length))
    inputs["attention_mask"] = np.ones((batch, length), dtype=np.int64)
    inputs["attention_mask"][1:, length // 2 + 1 :] = 0
    (name,) = (spec.name for spec in text_model.source.signature.outputs)
    due, got = text_model.source.reference(inputs)[name], text_model.run(inputs)[name]
    assert got.shape == due.shape
    # What a tagger says of padding is read by no one.
    kept = inputs["attention_mask"] == 1 if got.ndim == 3 else slice(None)
    np.testing.assert_allclose(got[kept], due[kept], atol=2e-5)


def test_the_limit_is_the_number_of_positions(text_model: Converted) -> None:
    assert text_model.source.provenance["max_length"] == POSITIONS
    longest = max(sample["input_ids"].shape[1] for sample in text_model.source.samples)
    assert longest == POSITIONS


def test_samples_differ_in_length_and_one_is_padded(text_model: Converted) -> None:
    samples = text_model.source.samples
    assert len({sample["input_ids"].shape[1] for sample in samples}) > 3
    assert any((sample["attention_mask"] == 0).any() for sample in samples)


def test_an_image_model_answers_as_torch_does(image_model: Converted) -> None:
    source = image_model.source
    (row,) = parity.compare(image_model.run, source.reference, source.samples, source.signature)
    assert row.top1_agreement == 1.0
    assert source.signature.inputs[0].dims == (3, 32, 32)


def test_pictures_give_different_answers(image_model: Converted) -> None:
    logits = [image_model.run(dict(sample))["logits"] for sample in image_model.source.samples]
    assert np.ptp(np.concatenate(logits), axis=0).max() > 0.01
