from pathlib import Path

import numpy as np
import pytest

from conch.errors import RepositoryError
from conch.manifest import Golden, Manifest, Parity, digest_files, tensor_from_json, tensor_to_json


def manifest() -> Manifest:
    text = tensor_to_json(np.array([["스팸"]], dtype=object))
    return Manifest(
        model="spam",
        created_at="2026-01-02T03:04:05+00:00",
        source={"kind": "sklearn", "sklearn": "1.9.1"},
        files={"model.onnx": "00ff"},
        config='name: "spam"\n',
        parity=(Parity("scores", 12, 1e-7, 1e-4, cosine=1.0, top1_agreement=1.0),),
        golden=(Golden({"text": text}, {"score": tensor_to_json(np.ones((1, 1), np.float32))}),),
        packages=("tokenizers>=0.19",),
        opset=21,
        ir_version=10,
    )


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert Manifest.read(manifest().write(tmp_path)) == manifest()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "parity": 3}'])
def test_a_broken_manifest_is_an_error_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(RepositoryError, match=str(path)):
        Manifest.read(path)


def test_digests_cover_every_file_but_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "labels.txt").write_text("ham\nspam\n")
    (tmp_path / "model.py").write_bytes(b"")
    manifest().write(tmp_path)
    digests = digest_files(tmp_path)
    assert list(digests) == ["assets/labels.txt", "model.py"]
    # SHA-256 of nothing, from FIPS 180-4's test vectors.
    assert digests["model.py"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0]], np.float32),
        np.array([], np.int64),
        np.array([True, False]),
        np.array([["한국어", ""]], dtype=object),
    ],
    ids=["fp32", "empty", "bool", "text"],
)
def test_tensors_survive_json(array: np.ndarray) -> None:
    back = tensor_from_json(tensor_to_json(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
