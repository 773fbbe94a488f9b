"""What is left when an export ends in the middle: killed, stopped with Ctrl-C, or on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.errors import RepositoryError
from conch.repository import Repository
from export import steps
from export.options import ExportOptions
from tests.fakes import tiny_onnx

ROOT = Path(__file__).parents[3]

# An export that has written half of a file, says so, and never gets further.
STUCK = """
    import dataclasses, sys, time
    from pathlib import Path
    from export import steps
    from export.options import ExportOptions
    from tests.fakes import tiny_onnx

    def write(path, options):
        path.write_bytes(b"half a model")
        print("writing", flush=True)
        time.sleep(60)

    folder = Path(sys.argv[1])
    source = dataclasses.replace(tiny_onnx.source(folder), write=write)
    try:
        steps.run(source, ExportOptions("tiny", repository=folder / "models", trial=False))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions("tiny", repository=tmp_path / "models", max_batch_size=8, trial=False)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """An export in a process of its own, in the middle of writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUCK), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def staged(options: ExportOptions) -> list[Path]:
    return [p for p in Repository(options.repository).staging.rglob("*") if p.is_file() and p.name != "lock"]


def test_a_killed_export_leaves_the_repository_alone_and_the_next_sweeps_up(
    stuck: subprocess.Popen[str], tmp_path: Path, options: ExportOptions
) -> None:
    stuck.kill()
    assert stuck.wait(timeout=10) == -signal.SIGKILL
    assert list(options.repository.iterdir()) == []
    assert [p.read_bytes() for p in staged(options)] == [b"half a model"]
    assert steps.run(tiny_onnx.source(tmp_path), options).version == 1
    assert staged(options) == []


def test_an_export_under_way_is_not_swept_by_another(
    stuck: subprocess.Popen[str], tmp_path: Path, options: ExportOptions
) -> None:
    assert steps.run(tiny_onnx.source(tmp_path), options).version == 1
    assert [p.read_bytes() for p in staged(options)] == [b"half a model"]


def test_ctrl_c_leaves_nothing(stuck: subprocess.Popen[str], options: ExportOptions) -> None:
    stuck.send_signal(signal.SIGINT)
    assert stuck.wait(timeout=10) == 130
    assert list(options.repository.iterdir()) == []
    assert staged(options) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", folder], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, "the disk could not be unmounted"
            time.sleep(0.1)


@pytest.mark.parametrize("optimize", [False, True])
def test_a_full_disk_is_named_and_nothing_is_written(small_disk: Path, tmp_path: Path, optimize: bool) -> None:
    """Without --optimize Python's own write fails; with it ONNX Runtime's, which says nothing of disks."""
    import numpy as np

    from conch.tensor_spec import ModelSignature, TensorSpec
    from export import from_onnx

    # Fits once, and not a second time beside itself; or not at all.
    rows = 150 if optimize else 300
    path = tiny_onnx.save(tiny_onnx.linear(weights=np.ones((rows, 1000), np.float32)), tmp_path / "big.onnx")
    options = ExportOptions("big", repository=small_disk / "models", max_batch_size=8, trial=False, optimize=optimize)
    source = from_onnx.load(path, options)
    assert source.signature == ModelSignature(
        (TensorSpec("x", "FP32", (rows,)),), (TensorSpec("y", "FP32", (1000,)),), 8
    )
    with pytest.raises(RepositoryError, match="nothing in it was changed") as raised:
        steps.run(source, options)
    assert raised.value.got == os.strerror(28)
    assert "free disk space" in str(raised.value.fix)
    assert list(options.repository.iterdir()) == []
    assert staged(options) == []
