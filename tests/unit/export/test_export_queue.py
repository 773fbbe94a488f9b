"""How --max-queue comes into a config, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conch.errors import ExportError
from conch.model_config import build_config, parse, render
from conch.repository import Repository
from export import write_model
from export.check_graph import Checked
from export.options import ExportOptions
from tests.fakes import tiny_onnx

OPTIONS = ExportOptions("tiny", max_batch_size=8, instances=2, max_queue=64)
CHECKED = Checked(run=lambda _: {})


@pytest.mark.parametrize("max_batch_size", [0, 1, 8])
def test_the_limit_is_written_whether_there_are_batches_or_not(max_batch_size: int, tmp_path: Path) -> None:
    source = tiny_onnx.source(tmp_path)
    source = replace(source, signature=replace(source.signature, max_batch_size=max_batch_size))
    text = render(build_config("tiny", source.signature, write_model.model_settings(source, OPTIONS, CHECKED)))
    assert parse(text).dynamic_batching.default_queue_policy.max_queue_size == 64


def test_without_the_option_there_is_no_queue_policy(tmp_path: Path) -> None:
    options = replace(OPTIONS, max_queue=0)
    source = tiny_onnx.source(tmp_path)
    text = render(build_config("tiny", source.signature, write_model.model_settings(source, options, CHECKED)))
    assert "default_queue_policy" not in text


def test_one_instance_takes_no_limit() -> None:
    replace(OPTIONS, max_queue=0, instances=1).check()
    with pytest.raises(ExportError, match="limited queue needs two instances"):
        replace(OPTIONS, instances=1).check()


def test_a_model_that_must_not_merge_takes_none(tmp_path: Path) -> None:
    source = replace(tiny_onnx.source(tmp_path), dynamic_batching=False)
    with (
        Repository(tmp_path / "repository").stage() as stage,
        pytest.raises(ExportError, match="must answer apart"),
    ):
        write_model.write(stage, source, OPTIONS, tmp_path / "model.onnx", CHECKED)
