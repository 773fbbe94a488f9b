import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conch.errors import ExportError
from export.from_huggingface import load
from export.from_huggingface_classes import class_answer, classify_activation, labels
from export.from_huggingface_samples import strings
from export.from_huggingface_text import entity_reference, rerank_activation
from export.from_huggingface_tokenizer import find_max_length, open_tokenizer, position_limit
from export.options import ExportOptions
from export.quiet import quiet
from export.source import Source
from tests.fakes import tiny_checkpoints
from tests.fakes.tiny_checkpoints import LABELS, POSITIONS, TAGS, write_image_model, write_text_model

OPTIONS = ExportOptions(name="m")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_text_model(
            tmp_path_factory.mktemp("classifier"), head="ForSequenceClassification", **tiny_checkpoints.labels(LABELS)
        )


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_text_model(
            tmp_path_factory.mktemp("tagger"), head="ForTokenClassification", **tiny_checkpoints.labels(TAGS)
        )


def config(**values: Any) -> Any:
    return SimpleNamespace(**{"problem_type": None, "num_labels": 3, **values})


@pytest.mark.parametrize(
    ("values", "due"),
    [
        ({}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1}, "sigmoid"),
        ({"problem_type": "regression", "num_labels": 1}, "none"),
    ],
)
def test_the_activation_is_the_one_of_transformers_pipeline(values: dict[str, Any], due: str) -> None:
    assert classify_activation(config(**values)) == due


@pytest.mark.parametrize(
    ("id2label", "due"),
    [
        ({0: "a", 1: "b", 2: "c"}, ("a", "b", "c")),
        ({2: "c", 0: "a", 1: "b"}, ("a", "b", "c")),
        ({0: "crane", 1: "b", 2: "crane"}, ("crane", "b", "crane (2)")),
        ({0: "two\nlines", 2: " "}, ("two lines", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_are_one_a_line_and_differ(id2label: dict[int, str], due: tuple[str, ...]) -> None:
    assert labels(config(id2label=id2label)) == due


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_class_answers_add_up(activation: str) -> None:
    answer = class_answer(np.array([[0.0, 2.0, -1.0]]), ("a", "b", "c"), activation, with_label=True)
    assert answer["label"].tolist() == [["b"]]
    due = {"softmax": np.exp(2) / (1 + np.exp(2) + np.exp(-1)), "sigmoid": 1 / (1 + np.exp(-2)), "none": 2.0}
    assert answer["score"][0, 0] == pytest.approx(due[activation])
    assert answer["scores"].shape == (1, 3)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, torch.nn.Sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, torch.nn.Identity),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, torch.nn.Tanh),
        ({"sentence_transformers": {"version": "5.0"}}, torch.nn.Sigmoid),
    ],
)
def test_a_reranker_s_activation_is_what_its_config_says(values: dict[str, Any], kind: type) -> None:
    assert isinstance(rerank_activation(config(**values)), kind)


def test_a_reranker_s_unknown_activation_is_refused() -> None:
    with pytest.raises(ExportError, match=r"not one of torch\.nn") as caught:
        rerank_activation(config(sentence_transformers={"activation_fn": "os.system"}))
    assert caught.value.got == "os.system"


def test_a_classifier_of_three_is_no_reranker(classifier: Path) -> None:
    with pytest.raises(ExportError, match="one number") as caught:
        load(str(classifier), "rerank", OPTIONS)
    assert "3 labels: calm, angry, unsure" in str(caught.value.got)


def test_a_classifier_s_parts(classifier: Path) -> None:
    source = load(str(classifier), "text-classification", OPTIONS)
    assert source.pipeline is not None
    before, after = source.pipeline.preprocess, source.pipeline.postprocess
    assert before is not None
    assert after is not None
    assert before.parameters == {
        "max_length": str(POSITIONS),
        "outputs": "input_ids,attention_mask",
    }
    assert after.assets == {"labels.txt": b"calm\nangry\nunsure\n"}
    assert after.parameters == {"activation": "softmax"}
    assert source.pipeline.outputs == ("label", "score", "scores")


def test_rules_take_their_outputs_out_of_the_comparison(classifier: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, rules=tmp_path / "rules.yaml")
    source = load(str(classifier), "text-classification", options)
    assert source.pipeline is not None
    assert source.pipeline.reference is not None
    assert set(source.pipeline.reference(source.pipeline.requests[0])) == {"scores"}


def test_the_reference_is_transformers_own_pipeline(classifier: Path) -> None:
    import transformers

    source = load(str(classifier), "text-classification", OPTIONS)
    with quiet():
        pipeline = transformers.pipeline("text-classification", model=str(classifier))
        cut = {"truncation": True, "max_length": POSITIONS}
        found = [pipeline(str(request["text"][0, 0]), **cut)[0] for request in requests_of(source)]
    mine = [answer_of(source, request) for request in requests_of(source)]
    assert [row["label"] for row in found] == [answer["label"][0, 0] for answer in mine]
    # Not the labels: the tokenizer is trained anew in each run, and its ties fall otherwise.
    assert len({round(row["score"], 4) for row in found}) > 1
    np.testing.assert_allclose([row["score"] for row in found], [a["score"][0, 0] for a in mine], atol=1e-6)


def requests_of(source: Source) -> Any:
    assert source.pipeline is not None
    return source.pipeline.requests


def answer_of(source: Source, request: Any) -> Any:
    assert source.pipeline is not None
    assert source.pipeline.reference is not None
    return source.pipeline.reference(request)


def test_entities_of_the_reference_are_cut_from_the_text(tagger: Path) -> None:
    source = load(str(tagger), "token-classification", OPTIONS)
    found = 0
    for request in requests_of(source):
        text = request["text"][0, 0]
        for entity in json.loads(answer_of(source, request)["entities"][0, 0]):
            assert entity["text"] == text[entity["start"] : entity["end"]]
            assert entity["label"] in ("PER", "LOC")
            assert 0 < entity["score"] <= 1
            found += 1
    assert found > 10


def test_int8_entities_are_not_compared_letter_by_letter(tagger: Path) -> None:
    source = load(str(tagger), "token-classification", dataclasses.replace(OPTIONS, precision="int8"))
    assert source.pipeline is not None
    assert source.pipeline.reference is None


def test_labels_that_transformers_misreads_are_no_reference() -> None:
    assert entity_reference(None, None, ("O", "B-PER", "I-PER", "E-PER", "S-PER")) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        ({"precision": "fp32"}, True),
        ({"precision": "fp16"}, True),
        ({"precision": "int8"}, False),
        ({"precision": "int8", "calibration": Path("texts.txt")}, True),
    ],
)
def test_dynamic_int8_requests_are_left_apart(classifier: Path, options: dict[str, Any], merged: bool) -> None:
    source = load(str(classifier), "text-classification", dataclasses.replace(OPTIONS, **options))
    assert source.dynamic_batching is merged


def test_the_user_s_own_texts_are_the_samples(classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo three\n", encoding="utf-8")
    source = load(str(classifier), "text-classification", dataclasses.replace(OPTIONS, samples=path))
    assert [request["text"][0, 0] for request in requests_of(source)][:2] == ["one", "two three"]
    assert source.read_samples is not None
    assert len(source.read_samples(path)) == 2


class Positions(torch.nn.Module):
    def __init__(self, rows: int, padding_idx: int | None) -> None:
        super().__init__()
        self.position_embeddings = torch.nn.Embedding(rows, 4, padding_idx=padding_idx)
        self.config = SimpleNamespace(max_position_embeddings=9999)


@pytest.mark.parametrize(("rows", "padding_idx", "due"), [(512, None, 512), (514, 1, 512), (40, 0, 39)])
def test_positions_before_the_first_are_not_counted(rows: int, padding_idx: int | None, due: int) -> None:
    assert position_limit(Positions(rows, padding_idx)) == due


@pytest.mark.parametrize(
    ("tokenizer", "own", "due"),
    [(10**30, None, 512), (10**30, 256, 256), (128, 256, 128), (4096, None, 512)],
)
def test_the_shortest_limit_counts(tokenizer: int, own: int | None, due: int) -> None:
    assert find_max_length(SimpleNamespace(model_max_length=tokenizer), Positions(512, None), own) == due


def test_without_any_limit_there_is_one() -> None:
    model = SimpleNamespace(named_modules=list, config=SimpleNamespace())
    assert find_max_length(SimpleNamespace(model_max_length=10**30), model) == 512


@pytest.mark.parametrize(("pairs", "told"), [(False, False), (True, True)])
def test_token_types_are_only_sent_where_they_say_something(classifier: Path, pairs: bool, told: bool) -> None:
    from transformers import BertModel

    with quiet():
        model = BertModel.from_pretrained(classifier)
    arguments = ("input_ids", "attention_mask", "token_type_ids")
    assert ("token_type_ids" in open_tokenizer(classifier, model, arguments, pairs=pairs).tensors) is told


def test_the_served_tokenizer_gives_transformers_ids(classifier: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import BertModel

    with quiet():
        model = BertModel.from_pretrained(classifier)
    tokenizer = open_tokenizer(classifier, model, ("input_ids", "attention_mask", "token_type_ids"))
    served = Tokenizer.from_str(tokenizer.asset().decode())
    text = "Maria Jansen moved from Rotterdam to Lisbon in 2019. " * 9
    assert served.encode(text).ids == tokenizer.encode([text])["input_ids"][0].tolist()
    assert len(served.encode(text).ids) == POSITIONS
    assert served.padding["pad_id"] == tokenizer.inner.pad_token_id
    assert served.encode("a", text).ids == tokenizer.encode(["a"], [text])["input_ids"][0].tolist()


def test_small_letters_are_made_where_the_model_wants_them(classifier: Path) -> None:
    from transformers import BertModel

    with quiet():
        model = BertModel.from_pretrained(classifier)
    names = ("input_ids", "attention_mask")
    cased = open_tokenizer(classifier, model, names)
    cased.inner.backend_tokenizer.normalizer = None
    lower = open_tokenizer(classifier, model, names, lowercase=True)
    assert lower.encode(["PARCEL"])["input_ids"].tolist() == cased.encode(["parcel"])["input_ids"].tolist()


def test_strings_are_a_batch_of_one_each() -> None:
    assert strings("a", b"\xff").shape == (2, 1)


def test_an_image_model_s_processor_is_written_out(tmp_path: Path) -> None:
    with quiet():
        folder = write_image_model(tmp_path)
    source = load(str(folder), "image-classification", OPTIONS)
    assert source.pipeline is not None
    assert source.pipeline.preprocess is not None
    asset = source.pipeline.preprocess.assets["processor.json"]
    assert isinstance(asset, bytes)
    settings = json.loads(asset)
    assert settings["image_processor_type"] == "ViTImageProcessor"
    assert settings["size"] == {"height": 32, "width": 32}


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    with quiet():
        folder = write_image_model(tmp_path)
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ExportError, match="several sizes"):
        load(str(folder), "image-classification", OPTIONS)


def test_a_prompt_of_sentence_transformers_is_told(tmp_path: Path) -> None:
    with quiet():
        folder = write_text_model(tmp_path)
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Normalize", "path": "1_Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    source = load(str(folder), "embeddings", OPTIONS)
    assert "'query: '" in source.notes[0]
    assert source.provenance["max_length"] == 20


def test_a_reranker_is_asked_with_a_pair(tmp_path: Path) -> None:
    with quiet():
        folder = write_text_model(tmp_path, head="ForSequenceClassification", num_labels=1)
    source = load(str(folder), "rerank", OPTIONS)
    assert source.infer_arguments.startswith("--text 'opening hours' --text-pair 'We are open")
