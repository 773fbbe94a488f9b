import dataclasses
from pathlib import Path

import numpy as np
import pytest

from conch.errors import RepositoryError
from conch.manifest import (
    FileChanges,
    Golden,
    Manifest,
    Parity,
    changed_files,
    digest_files,
    tensor_from_json,
    tensor_to_json,
)


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


def test_a_signature_is_no_file_of_the_version(tmp_path: Path) -> None:
    (tmp_path / "manifest.sig").write_bytes(b"signed")
    assert digest_files(tmp_path) == {}


def test_a_manifest_deeper_in_the_version_is_a_file_like_others(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "manifest.json").write_text("{}")
    (tmp_path / "assets" / "manifest.sig").write_text("")
    assert list(digest_files(tmp_path)) == ["assets/manifest.json", "assets/manifest.sig"]


def test_what_was_done_to_the_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "same").write_text("s")
    (tmp_path / "other").write_text("o")
    (tmp_path / "gone").write_text("g")
    written = dataclasses.replace(manifest(), files=digest_files(tmp_path))
    assert not changed_files(tmp_path, written)
    (tmp_path / "other").write_text("O")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").touch()
    found = changed_files(tmp_path, written)
    assert found == FileChanges(changed=("other",), missing=("gone",), added=("new",))
    assert str(found) == "changed: other; missing: gone; added: new"


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
