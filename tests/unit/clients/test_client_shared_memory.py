"""Regions: where tensors lie in them, who may use them when, and that none is left behind."""

from __future__ import annotations

import os

import numpy as np
import pytest

from clients.encoding import wire_bytes
from clients.request import Tensor, tensor_bytes
from clients.shared_memory import RegionPool, lay_out, output_size
from conch.tensor_spec import DATA_TYPES, TensorSpec


def test_tensors_lie_apart_and_aligned_and_small_ones_stay_out() -> None:
    layout = lay_out({"a": 100, "tiny": 9, "b": 64, "c": 1}, min_bytes=10)
    assert layout.offsets == {"a": 0, "b": 128}
    assert layout.total == 192


def test_empty_tensors_take_no_memory() -> None:
    assert lay_out({"a": 0}, min_bytes=0).total == 0


def test_a_region_is_for_one_request_at_a_time_and_used_again() -> None:
    pool = RegionPool()
    first, second = pool.take(70_000), pool.take(70_000)
    assert first.name != second.name
    pool.give_back(first)
    assert pool.take(100_000) is first
    assert pool.take(200_000).size == 262_144
    regions = pool.drain()
    assert len(regions) == 3
    for region in regions:
        region.unlink()
    assert [name for name in os.listdir("/dev/shm") if name.startswith(f"conch-{os.getpid()}-")] == []


def test_what_is_written_is_read() -> None:
    pool = RegionPool()
    region = pool.take(1000)
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    region.write(64, source.tobytes())
    assert region.read(64, source.dtype, (2, 3)).tolist() == source.tolist()
    for each in pool.drain():
        each.unlink()


@pytest.mark.parametrize("datatype", [t.wire for t in DATA_TYPES])
def test_the_size_of_a_tensor_is_the_size_of_its_bytes(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (3,))
    value = [b"a", b"", "é".encode()] if datatype == "BYTES" else [0, 1, 1]
    tensor = Tensor("x", datatype, np.array([value], dtype=spec.numpy))
    assert len(wire_bytes(tensor)) == tensor_bytes(tensor)


def test_bfloat16_bytes_are_ml_dtypes_own() -> None:
    import ml_dtypes

    values = np.array([1.5, -2.0, 3.14159, 1e-3, 65504.0], np.float32)
    assert wire_bytes(Tensor("x", "BF16", values)) == values.astype(ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize(
    ("spec", "batch", "size"),
    [
        (TensorSpec("x", "FP32", (3, 4)), 2, 96),
        (TensorSpec("x", "INT8", (3,)), None, 3),
        (TensorSpec("x", "FP32", (-1,)), 2, None),
        (TensorSpec("x", "BYTES", (1,)), 2, None),
    ],
)
def test_the_size_of_an_output_is_known_or_not(spec: TensorSpec, batch: int | None, size: int | None) -> None:
    assert output_size(spec, batch) == size
