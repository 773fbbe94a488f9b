from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conch.errors import ExportError
from conch.tensor_spec import ModelSignature, TensorSpec
from export import read_samples

SIGNATURE = ModelSignature((TensorSpec("x", "FP32", (2,)), TensorSpec("s", "BYTES", (1,), optional=True)), (), 8)


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.json", '{"x": [[1, 2]], "s": [["ja"]]}', 1),
        ("a.json", '[{"x": [[1, 2]]}, {"x": [[0.5, 2], [1, 3]]}]', 2),
        ("a.jsonl", '{"x": [[1, 2]]}\n\n{"x": [[3, 4]]}\n', 2),
    ],
)
def test_json_samples(name: str, text: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    samples = read_samples.fit(read_samples.read(path), SIGNATURE, path)
    assert len(samples) == count
    assert all(sample["x"].dtype == np.float32 for sample in samples)


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)))
    (sample,) = read_samples.fit(read_samples.read(tmp_path / "a.npz"), SIGNATURE, "a.npz")
    assert (sample["x"].dtype, sample["x"].shape) == (np.float32, (3, 2))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", "[]", "holds no samples"),
        ("a.json", '{"x": [[1, 2], [1]]}', "cannot be read"),
        ("a.txt", "1 2", "not known"),
        ("a.npz", "no zip", "cannot be read"),
    ],
)
def test_files_that_hold_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        read_samples.read(path)


def test_a_pickle_in_an_npz_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ExportError, match="cannot be read"):
        read_samples.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"x": np.ones((1, 3), np.float32)}, "wrong shape"),
        ({"x": np.array([["a", "b"]])}, "wrong type"),
        ({"xx": np.ones((1, 2), np.float32)}, "no input named xx"),
        ({}, "input x is missing"),
    ],
)
def test_samples_that_do_not_fit(sample: dict, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        read_samples.fit([sample], SIGNATURE, "samples")
