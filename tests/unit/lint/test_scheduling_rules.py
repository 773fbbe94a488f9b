"""Rules R19 to R25: for each a repository that breaks it alone, and one that does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conch.lint import Finding
from conch.lint.finding import EditConfig
from conch.model_config import ModelConfig, parse
from tests.fakes.lint_repositories import ONNX_CONFIG, PYTHON_CONFIG, findings, found, onnx_model, python_model, write

TENSORRT = """
name: "NAME"
platform: "tensorrt_plan"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""
BATCHING = "dynamic_batching { preferred_batch_size: [ SIZES ] }\n"
GROUP = "instance_group { count: 1 kind: KIND_CPU }\n"


def tensorrt_model(root: Path, config: str) -> Path:
    return write(root / "m", {"config.pbtxt": TENSORRT.replace("NAME", "m") + config, "1/model.plan": "engine"})


def only(root: Path, **options: object) -> Finding:
    """The one finding of a repository."""
    (finding,) = findings(root, **options)
    return finding


def fixed(root: Path, **options: object) -> list[str]:
    """The rules that still find something after each finding's own mend."""
    for finding in findings(root, **options):
        assert isinstance(finding.mend, EditConfig)
        path = Path(finding.file)
        config = parse(path.read_text())
        finding.mend.edit(config)
        path.write_text(str(config))
    return found(root, **options)


@pytest.mark.parametrize(
    ("sizes", "severity"),
    [("16", "error"), ("4, 16", "error"), ("0", "error"), ("-3, 8", "error"), ("4", "warning"), ("4, 8", "warning")],
)
def test_preferred_sizes_of_onnx_runtime(tmp_path: Path, sizes: str, severity: str) -> None:
    onnx_model(tmp_path, config=ONNX_CONFIG + BATCHING.replace("SIZES", sizes))

    finding = only(tmp_path)

    assert (finding.rule, finding.severity) == ("R19", severity)
    assert finding.place == "dynamic_batching.preferred_batch_size"
    assert sizes.split(",")[0].strip() in finding.got
    assert fixed(tmp_path) == []


@pytest.mark.parametrize(("sizes", "rules"), [("4, 8", []), ("4, 9", ["R19"])])
def test_preferred_sizes_of_tensorrt(tmp_path: Path, sizes: str, rules: list[str]) -> None:
    tensorrt_model(tmp_path, BATCHING.replace("SIZES", sizes))

    assert found(tmp_path) == rules
    assert fixed(tmp_path) == []
    assert "4" in (tmp_path / "m/config.pbtxt").read_text()


@pytest.mark.parametrize(("delay", "rules"), [("", []), ("max_queue_delay_microseconds: 100 ", ["R19"])])
def test_preferred_sizes_of_a_python_model_bound_a_trip(tmp_path: Path, delay: str, rules: list[str]) -> None:
    batching = BATCHING.replace("SIZES", "4").replace("{ ", "{ " + delay)
    python_model(tmp_path, config=PYTHON_CONFIG + batching)
    assert found(tmp_path) == rules


def test_preferred_sizes_of_sequences(tmp_path: Path) -> None:
    sequence = "sequence_batching { oldest { preferred_batch_size: [ SIZES ] } }\n"
    tensorrt_model(tmp_path, sequence.replace("SIZES", "4, 9"))
    assert only(tmp_path).place == "sequence_batching.oldest.preferred_batch_size"
    assert fixed(tmp_path) == []


def test_tensorrt_within_onnx_runtime_may_prefer_sizes(tmp_path: Path) -> None:
    accelerated = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }'
    onnx_model(tmp_path, config=ONNX_CONFIG + BATCHING.replace("SIZES", "4") + accelerated)
    assert found(tmp_path) == []


def test_preferred_sizes_before_the_backend_said_its_batch_size(tmp_path: Path) -> None:
    write(tmp_path / "m", {"config.pbtxt": BATCHING.replace("SIZES", "4"), "1/model.plan": "engine"})
    assert found(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1])
def test_dynamic_batching_of_single_requests(tmp_path: Path, size: int) -> None:
    config = PYTHON_CONFIG.replace("max_batch_size: 8", f"max_batch_size: {size}")
    python_model(tmp_path, config=config + "dynamic_batching { max_queue_delay_microseconds: 100 }")

    finding = only(tmp_path)

    assert (finding.rule, finding.severity, finding.place) == ("R20", "warning", "dynamic_batching")
    assert f"max_batch_size: {size}" in finding.got


def test_dynamic_batching_for_the_sake_of_its_queue_is_a_note(tmp_path: Path) -> None:
    config = PYTHON_CONFIG.replace("max_batch_size: 8", "max_batch_size: 1")
    python_model(tmp_path, config=config + "dynamic_batching { default_queue_policy { max_queue_size: 10 } }")
    assert (only(tmp_path).rule, only(tmp_path).severity) == ("R20", "note")


def test_dynamic_batching_of_batches(tmp_path: Path) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG + "dynamic_batching { }")
    assert found(tmp_path) == []


VARIABLE = PYTHON_CONFIG.replace("dims: [ 4 ]", "dims: [ -1 ]") + "dynamic_batching { }"


def test_variable_dims_merge_only_when_equal(tmp_path: Path) -> None:
    python_model(tmp_path, config=VARIABLE)
    assert (only(tmp_path).rule, only(tmp_path).severity, only(tmp_path).place) == ("R21", "note", "input[x].dims")


@pytest.mark.parametrize(
    "config",
    [
        VARIABLE.replace("dims: [ -1 ]", "dims: [ -1 ] allow_ragged_batch: true"),
        VARIABLE.replace("dynamic_batching { }", ""),
        VARIABLE.replace("[ 3 ]", "[ -1 ]").replace("[ -1 ] }\noutput", "[ 4 ] }\noutput"),
    ],
    ids=["ragged", "no batching", "output only"],
)
def test_variable_dims_that_do_no_harm(tmp_path: Path, config: str) -> None:
    python_model(tmp_path, config=config)
    assert found(tmp_path) == []


@pytest.mark.parametrize(("multiple", "rules"), [("32", []), ("1", ["R21"]), ("many", ["R21"])])
def test_padding_to_buckets_before_the_model(tmp_path: Path, multiple: str, rules: list[str]) -> None:
    python_model(tmp_path, "m", config=VARIABLE)
    padding = f'parameters {{ key: "pad_to_multiple_of" value {{ string_value: "{multiple}" }} }}'
    python_model(tmp_path, "pad", config=PYTHON_CONFIG.replace("dims: [ 3 ]", "dims: [ -1 ]") + padding)
    ensemble = """
        name: "all" platform: "ensemble" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
        ensemble_scheduling {
          step { model_name: "pad" model_version: -1
                 input_map { key: "x" value: "x" } output_map { key: "y" value: "padded" } }
          step { model_name: "m" model_version: -1
                 input_map { key: "x" value: "padded" } output_map { key: "y" value: "y" } }
        }"""
    write(tmp_path / "all", {"config.pbtxt": ensemble, "1": None})
    assert found(tmp_path) == rules


@pytest.mark.parametrize(
    ("batching", "place"),
    [
        ("dynamic_batching { max_queue_delay_microseconds: 60000 }", "dynamic_batching"),
        ("sequence_batching { oldest { max_queue_delay_microseconds: 60000 } }", "sequence_batching.oldest"),
        ("sequence_batching { direct { max_queue_delay_microseconds: 60000 } }", "sequence_batching.direct"),
    ],
)
def test_queue_delay_over_the_latency_budget(tmp_path: Path, batching: str, place: str) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG + batching)

    finding = only(tmp_path, latency_budget_ms=50)

    assert (finding.rule, finding.place) == ("R22", f"{place}.max_queue_delay_microseconds")
    assert "60 ms" in finding.got
    assert found(tmp_path, latency_budget_ms=60) == []
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("batching", "place"),
    [
        ("default_queue_policy { default_timeout_microseconds: 500 }", "default_queue_policy"),
        (
            "priority_levels: 2 default_priority_level: 1 "
            "priority_queue_policy { key: 2 value { default_timeout_microseconds: 500 } }",
            "priority_queue_policy[2]",
        ),
    ],
)
def test_timeout_in_milliseconds(tmp_path: Path, batching: str, place: str) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG + f"dynamic_batching {{ {batching} }}")
    finding = only(tmp_path)
    assert (finding.rule, finding.place) == ("R23", f"dynamic_batching.{place}.default_timeout_microseconds")
    assert "500000" in finding.fix


@pytest.mark.parametrize("timeout", [0, 1000, 500000])
def test_timeout_in_microseconds(tmp_path: Path, timeout: int) -> None:
    policy = f"default_queue_policy {{ default_timeout_microseconds: {timeout} }}"
    python_model(tmp_path, config=PYTHON_CONFIG + f"dynamic_batching {{ {policy} }}")
    assert found(tmp_path) == []


def threads(count: int, number: str, key: str = "intra_op_thread_count") -> str:
    """A config with so many CPU instances of so many threads each."""
    group = f"instance_group {{ count: {count} kind: KIND_CPU }}\n"
    return ONNX_CONFIG.replace(GROUP, group) + f'parameters {{ key: "{key}" value {{ string_value: "{number}" }} }}'


def test_more_threads_than_cpus(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=threads(2, "3"))

    finding = only(tmp_path, cpus=4)

    assert (finding.rule, finding.severity) == ("R24", "warning")
    assert "2 instances times 3 threads = 6" in finding.got
    assert fixed(tmp_path, cpus=4) == []
    assert parse((tmp_path / "m/config.pbtxt").read_text()).parameters["intra_op_thread_count"].string_value == "2"


def test_more_instances_than_cpus(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=threads(8, "1"))
    assert found(tmp_path, cpus=4) == ["R24"]
    assert fixed(tmp_path, cpus=4) == []
    assert parse((tmp_path / "m/config.pbtxt").read_text()).instance_group[0].count == 4


def test_more_instances_than_cpus_in_several_groups_are_left_to_their_author(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=threads(2, "1") + GROUP.replace("1", "3"))
    assert only(tmp_path, cpus=4).fixable is False


def test_more_instances_than_cpus_by_default(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=ONNX_CONFIG.replace(GROUP, ""))
    assert found(tmp_path, cpus=1, gpu=False) == ["R24"]
    assert fixed(tmp_path, cpus=1, gpu=False) == []


@pytest.mark.parametrize("number", ["", "0", "auto"])
def test_threads_left_open_with_several_instances(tmp_path: Path, number: str) -> None:
    onnx_model(tmp_path, config=threads(2, number))
    assert (only(tmp_path, cpus=8).rule, only(tmp_path, cpus=8).severity) == ("R24", "note")
    assert fixed(tmp_path, cpus=8) == []
    assert parse((tmp_path / "m/config.pbtxt").read_text()).parameters["intra_op_thread_count"].string_value == "4"


def test_threads_are_judged_by_this_machine_as_a_note(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=threads(1, str((os.cpu_count() or 1) + 1)))
    finding = only(tmp_path)
    assert (finding.rule, finding.severity, finding.fixable) == ("R24", "note", False)
    assert "--cpus" in finding.expected


def test_onnx_runtime_has_two_instances_by_default_on_a_cpu(tmp_path: Path) -> None:
    onnx_model(tmp_path, config=ONNX_CONFIG.replace(GROUP, ""))
    assert found(tmp_path, cpus=8, gpu=False) == ["R24"]
    assert found(tmp_path, cpus=8) == []  # with a GPU it would be one


@pytest.mark.parametrize(
    "config",
    [
        threads(2, "2"),
        threads(1, "", key="other"),
        threads(4, "4").replace("KIND_CPU", "KIND_GPU"),
        threads(4, "4").replace("KIND_CPU", "KIND_AUTO"),
    ],
    ids=["as many as CPUs", "one instance", "on the GPU", "maybe on the GPU"],
)
def test_threads_that_fit(tmp_path: Path, config: str) -> None:
    onnx_model(tmp_path, config=config)
    assert found(tmp_path, cpus=4) == []


def test_threads_of_a_python_model_are_its_own_affair(tmp_path: Path) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG.replace("count: 1", "count: 8"))
    assert found(tmp_path, cpus=2) == []


@pytest.mark.parametrize(
    "group",
    ["kind: KIND_GPU", "kind: KIND_GPU gpus: [ 0, 1 ]", "kind: KIND_AUTO gpus: [ 0 ]"],
)
def test_instances_on_a_gpu_that_is_not_there(tmp_path: Path, group: str) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG.replace("kind: KIND_CPU", group))

    finding = only(tmp_path, gpu=False)

    assert (finding.rule, finding.severity, finding.place) == ("R25", "error", "instance_group[0].kind")
    assert found(tmp_path) == []
    assert found(tmp_path, gpu=True) == []
    assert fixed(tmp_path, gpu=False) == []
    group = parse((tmp_path / "m/config.pbtxt").read_text()).instance_group[0]
    assert (group.kind, list(group.gpus)) == (ModelConfig().instance_group.add().kind, [])


def test_a_tensorrt_engine_cannot_run_without_a_gpu(tmp_path: Path) -> None:
    tensorrt_model(tmp_path, "instance_group { kind: KIND_GPU }")
    finding = only(tmp_path, gpu=False)
    assert (finding.rule, finding.place, finding.fixable) == ("R25", "backend", False)


@pytest.mark.parametrize("kind", ["KIND_CPU", "KIND_AUTO", "KIND_MODEL"])
def test_instances_that_run_without_a_gpu(tmp_path: Path, kind: str) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG.replace("KIND_CPU", kind))
    assert found(tmp_path, gpu=False) == []
