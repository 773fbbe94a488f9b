import json
from pathlib import Path

import pytest

from conch.errors import ExportError
from export.from_huggingface import load
from export.from_huggingface_checkpoint import check_files, find, load_model
from export.options import ExportOptions
from export.quiet import quiet
from tests.fakes.tiny_checkpoints import LABELS, labels, write_image_model, write_text_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_text_model(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_text_model(
            tmp_path_factory.mktemp("classifier"), head="ForSequenceClassification", **labels(LABELS)
        )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return write_image_model(tmp_path_factory.mktemp("pictures"))


def copy(folder: Path, target: Path, *, without: str = "", rename: tuple[str, str] = ("", "")) -> Path:
    """A copy of a checkpoint that lacks the files whose name begins with ``without``."""
    for path in folder.iterdir():
        if not (without and path.name.startswith(without)):
            (target / path.name.replace(*rename)).write_bytes(path.read_bytes())
    return target


OPTIONS = ExportOptions(name="m")


@pytest.mark.parametrize(
    ("name", "what", "got"),
    [
        ("/no/such/folder", "there is no such model folder", "nothing at that path"),
        ("./relative", "there is no such model folder", "nothing at that path"),
        ("a/b/c", "there is no such model folder", "nothing at that path"),
        (__file__, "there is no such model folder", "a file"),
        ("spaces are not allowed", "neither a folder nor a hub's id", "spaces"),
    ],
)
def test_a_path_that_is_no_folder_is_refused(name: str, what: str, got: str) -> None:
    with pytest.raises(ExportError, match=what) as caught:
        find(name)
    assert got in str(caught.value.got)


def test_an_id_without_network_asks_for_a_local_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="nobody/nothing-of-that-name is no folder here") as caught:
        find("nobody/nothing-of-that-name")
    assert caught.value.got == "HF_HUB_OFFLINE is set"
    assert "unset HF_HUB_OFFLINE" in str(caught.value.fix)
    assert "local folder" in str(caught.value.fix)


def test_a_checkpoint_in_the_hub_s_cache_is_found_offline(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    copy(encoder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint = find("someone/tiny")
    assert checkpoint.folder == snapshot
    assert checkpoint.revision == commit


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("config.json", "lacks config.json"),
        ("model", "lacks weights"),
        ("tokenizer", "lacks a tokenizer"),
    ],
)
def test_a_file_that_is_missing_is_named(encoder: Path, tmp_path: Path, without: str, missing: str) -> None:
    folder = copy(encoder, tmp_path, without=without)
    with pytest.raises(ExportError, match=missing) as caught:
        load(str(folder), "embeddings", OPTIONS)
    assert "save_pretrained" in str(caught.value.fix)


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"config.json and weights and the image processor's settings") as caught:
        check_files(tmp_path, image_processor=True)
    assert caught.value.got == "an empty folder"


@pytest.mark.parametrize("task", ["text-classification", "rerank", "token-classification"])
def test_a_model_without_the_head_is_refused(encoder: Path, task: str) -> None:
    with pytest.raises(ExportError, match=f"not trained for {task}") as caught:
        load(str(encoder), task, OPTIONS)
    assert "BertModel, without classifier.bias" in str(caught.value.got)


def test_a_head_of_another_size_is_refused(classifier: Path, tmp_path: Path) -> None:
    folder = copy(classifier, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config.update(labels(("only", "two")))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"lacks weights|cannot load") as caught:
        load(str(folder), "text-classification", OPTIONS)
    assert "classifier" in str(caught.value) or "size" in str(caught.value)


def test_an_architecture_that_has_no_such_task_is_refused(classifier: Path, tmp_path: Path) -> None:
    folder = copy(classifier, tmp_path)
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ExportError, match="no variant for image-classification"):
        load(str(folder), "image-classification", OPTIONS)


def test_an_image_model_is_no_text_model(pictures: Path, tmp_path: Path, encoder: Path) -> None:
    folder = copy(encoder, tmp_path, without="config")
    copy(pictures, folder)
    with pytest.raises(ExportError, match="no variant for text-classification"):
        load(str(folder), "text-classification", OPTIONS)


def test_a_missing_pooler_is_no_matter_to_an_embedding(encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(encoder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder), "embeddings", OPTIONS).signature.outputs[0].dims == (32,)


def test_code_of_the_checkpoint_s_own_is_never_run(encoder: Path, tmp_path: Path) -> None:
    folder = copy(encoder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "made_up"
    config["auto_map"] = {"AutoConfig": "configuration.Made", "AutoModel": "modeling.Made"}
    (folder / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    (folder / "configuration.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    with pytest.raises(ExportError, match="model code of its own"):
        load(str(folder), "embeddings", OPTIONS)
    assert not marker.exists()


def test_damaged_weights_are_told(encoder: Path, tmp_path: Path) -> None:
    folder = copy(encoder, tmp_path)
    (folder / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ExportError, match="cannot load the checkpoint") as caught:
        load(str(folder), "embeddings", OPTIONS)
    assert "BertModel" in str(caught.value.got)


def test_pickled_weights_are_read_without_running_them(encoder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = copy(encoder, tmp_path, without="model")
    torch.save(load_file(encoder / "model.safetensors"), folder / "pytorch_model.bin")
    source = load(str(folder), "embeddings", OPTIONS)
    assert source.provenance["weights"].startswith("pickle")
    assert "pickle" in source.notes[0]
    assert load(str(encoder), "embeddings", OPTIONS).notes == ()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("conch-was-here"),))


def test_a_pickle_with_code_in_it_is_refused(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    folder = copy(encoder, tmp_path, without="model")
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="cannot load the checkpoint"):
        load(str(folder), "embeddings", OPTIONS)
    assert not (tmp_path / "conch-was-here").exists()


def test_a_tokenizer_of_another_model_is_refused(encoder: Path, tmp_path: Path) -> None:
    with quiet():
        other = write_text_model(tmp_path / "other", "Roberta")
    folder = tmp_path / "mixed"
    folder.mkdir()
    copy(encoder, folder, without="tokenizer")
    for path in other.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ExportError, match="the tokenizer is not this model's") as caught:
        load(str(folder), "embeddings", OPTIONS)
    assert "embedding table" in str(caught.value.expected)


def test_an_unknown_task_is_told_with_the_nearest() -> None:
    with pytest.raises(ExportError, match="no task embedding") as caught:
        load("anything", "embedding", OPTIONS)
    assert caught.value.fix == "did you mean embeddings?"


def test_a_pipeline_needs_batches() -> None:
    with pytest.raises(ExportError, match="pass batches"):
        load("anything", "embeddings", ExportOptions(name="m", max_batch_size=0))


def test_loading_is_silent(encoder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(find(str(encoder)), "AutoModel", "embeddings")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
