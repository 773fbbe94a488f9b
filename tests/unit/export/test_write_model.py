"""How a model is served: the config that each kind of export gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conch.model_config import build_config, render
from export import write_model
from export.check_graph import Checked
from export.options import ExportOptions
from tests.fakes import tiny_onnx

OPTIONS = ExportOptions("tiny", max_batch_size=8)
ON_GPU_TOO = Checked(run=lambda _: {})
CPU_ONLY = Checked(run=lambda _: {}, cpu_only=True)


def config(folder: Path, options: ExportOptions, checked: Checked = ON_GPU_TOO, max_batch_size: int = 8) -> str:
    source = tiny_onnx.source(folder)
    source = replace(source, signature=replace(source.signature, max_batch_size=max_batch_size))
    return render(build_config("tiny", source.signature, write_model.model_settings(source, options, checked)))


def test_the_default_config(tmp_path: Path) -> None:
    assert config(tmp_path, OPTIONS) == (
        'name: "tiny"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
        'input {\n  name: "x"\n  data_type: TYPE_FP32\n  dims: [4]\n}\n'
        'output {\n  name: "y"\n  data_type: TYPE_FP32\n  dims: [3]\n}\n'
        "dynamic_batching {\n}\ninstance_group {\n  count: 1\n}\n"
    )


@pytest.mark.parametrize(
    ("change", "checked", "on_cpu"),
    [
        ({}, ON_GPU_TOO, False),
        ({"precision": "fp16"}, ON_GPU_TOO, False),
        ({"precision": "int8"}, ON_GPU_TOO, True),
        ({}, CPU_ONLY, True),
    ],
)
def test_what_has_no_gpu_kernels_stays_on_the_cpu(
    change: dict[str, Any], checked: Checked, on_cpu: bool, tmp_path: Path
) -> None:
    assert ("KIND_CPU" in config(tmp_path, replace(OPTIONS, **change), checked)) is on_cpu


@pytest.mark.parametrize(
    ("format_", "key"), [("onnx", "intra_op_thread_count"), ("torchscript", "INTRA_OP_THREAD_COUNT")]
)
@pytest.mark.parametrize(("cores", "instances", "threads"), [(8, 2, "4"), (8, 3, "3"), (2, 4, "1")])
def test_instances_share_the_cores(
    format_: str, key: str, cores: int, instances: int, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    settings = write_model.model_settings(
        tiny_onnx.source(tmp_path), replace(OPTIONS, format=format_, instances=instances), ON_GPU_TOO
    )
    assert settings.parameters == {key: threads}


@pytest.mark.parametrize(
    ("optimize", "checked", "level"), [(True, CPU_ONLY, -1), (False, CPU_ONLY, None), (True, ON_GPU_TOO, None)]
)
def test_an_optimized_cpu_file_is_loaded_as_it_is(
    optimize: bool, checked: Checked, level: int | None, tmp_path: Path
) -> None:
    options = replace(OPTIONS, optimize=optimize)
    assert write_model.model_settings(tiny_onnx.source(tmp_path), options, checked).graph_level == level


def test_one_instance_is_left_all_cores_of_wherever_it_runs(tmp_path: Path) -> None:
    assert "parameters" not in config(tmp_path, OPTIONS)


@pytest.mark.parametrize(("max_batch_size", "batches"), [(0, False), (1, False), (2, True)])
def test_dynamic_batching_needs_batches(max_batch_size: int, batches: bool, tmp_path: Path) -> None:
    text = config(tmp_path, OPTIONS, max_batch_size=max_batch_size)
    assert ("dynamic_batching" in text) is batches
    assert f"max_batch_size: {max_batch_size}\n" in text


def test_a_source_keeps_its_own_parameters(tmp_path: Path) -> None:
    source = replace(tiny_onnx.source(tmp_path), parameters={"intra_op_thread_count": "7"})
    settings = write_model.model_settings(source, replace(OPTIONS, instances=2), ON_GPU_TOO)
    assert settings.parameters == {"intra_op_thread_count": "7"}
