import onnxruntime
import pytest
from conch_backend_config import LoadFailed, read_config
from conch_ort_session import run_options, session_options
from conch_ort_settings import choose_providers, ignored_parameters, session_settings

from tests.fakes.triton_python_backend_utils import model_config

LEVEL = onnxruntime.GraphOptimizationLevel
CPU, CUDA, TENSORRT, OPENVINO = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "OpenVINOExecutionProvider",
)


def config(accelerators=None, level=None, **more):
    optimization = {"execution_accelerators": accelerators or {}}
    if level is not None:
        optimization["graph"] = {"level": level}
    ends = {"inputs": {"x": ("TYPE_FP32", [3])}, "outputs": {"y": ("TYPE_FP32", [2])}}
    return read_config(model_config(**ends, optimization=optimization, **more))


def options(**parameters):
    return session_options(session_settings(config(parameters=parameters)))


def test_threads_reach_the_session():
    made = options(intra_op_thread_count="3", inter_op_thread_count="2", execution_mode="1")
    assert made.intra_op_num_threads == 3
    assert made.inter_op_num_threads == 2
    assert made.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL


def test_without_parameters_onnx_runtime_chooses():
    made, default = options(), onnxruntime.SessionOptions()
    for name in ("intra_op_num_threads", "inter_op_num_threads", "execution_mode", "enable_cpu_mem_arena"):
        assert getattr(made, name) == getattr(default, name), name
    assert made.graph_optimization_level == LEVEL.ORT_ENABLE_ALL


@pytest.mark.parametrize(
    ("level", "due"),
    [
        (-1, LEVEL.ORT_ENABLE_BASIC),
        (0, LEVEL.ORT_ENABLE_ALL),
        (1, LEVEL.ORT_ENABLE_EXTENDED),
        (2, LEVEL.ORT_DISABLE_ALL),
        (7, LEVEL.ORT_ENABLE_ALL),
    ],
)
def test_graph_levels_are_the_native_backends(level, due):
    assert session_options(session_settings(config(level=level))).graph_optimization_level == due


@pytest.mark.parametrize(("text", "due"), [("1", True), ("0", False)])
@pytest.mark.parametrize(
    ("parameter", "attribute"),
    [("enable_mem_arena", "enable_cpu_mem_arena"), ("enable_mem_pattern", "enable_mem_pattern")],
)
def test_memory_switches_reach_the_session(parameter, attribute, text, due):
    assert getattr(options(**{parameter: text}), attribute) is due


def test_config_entries_reach_the_session_and_the_run():
    settings = session_settings(
        config(
            parameters={
                "session.use_device_allocator_for_initializers": "1",
                "memory.enable_memory_arena_shrinkage": "cpu:0",
            }
        )
    )
    made = session_options(settings)
    assert made.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert run_options(settings).get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"
    assert run_options(session_settings(config())) is None


@pytest.mark.parametrize(("parameters", "due"), [({}, "0"), ({"session.intra_op.allow_spinning": "1"}, "1")])
def test_idle_threads_leave_the_cores_to_others_unless_told(parameters, due):
    assert options(**parameters).get_session_config_entry("session.intra_op.allow_spinning") == due


def test_an_execution_mode_that_is_none_is_refused():
    with pytest.raises(LoadFailed, match=r"execution_mode is out of range\n.*2\n.*0 \(sequential\) or 1"):
        options(execution_mode="2")


def choose(configured, available=(CPU,), *, gpu=False, asked=False, device_id=0):
    return choose_providers(configured, gpu=gpu, gpu_was_asked_for=asked, device_id=device_id, available=available)


def names(choice):
    return [provider.name for provider in choice.providers]


def test_a_cpu_instance_runs_on_the_cpu_whatever_is_installed():
    assert names(choose(config(), [CUDA, TENSORRT, CPU])) == [CPU]


def test_a_gpu_instance_runs_on_its_own_gpu():
    choice = choose(config(), [CUDA, CPU], gpu=True, asked=True, device_id=2)
    assert names(choice) == [CUDA, CPU]
    assert choice.providers[0].options["device_id"] == "2"


def test_kind_gpu_without_the_cuda_provider_is_an_error_that_says_so():
    with pytest.raises(LoadFailed, match=r"asks for KIND_GPU(.*\n)*.*CUDAExecutionProvider\n.*onnxruntime-gpu"):
        choose(config(), gpu=True, asked=True)


def test_a_gpu_that_triton_chose_falls_back_to_the_cpu_and_says_so():
    choice = choose(config(), gpu=True, asked=False)
    assert names(choice) == [CPU]
    assert "running on the CPU" in choice.warnings[0]


def test_openvino_is_used_where_it_is_installed():
    accelerators = {"cpu_execution_accelerator": [{"name": "openvino"}]}
    assert names(choose(config(accelerators), [OPENVINO, CPU])) == [OPENVINO, CPU]


def test_openvino_that_is_not_installed_is_ignored_with_a_warning():
    choice = choose(config({"cpu_execution_accelerator": [{"name": "openvino"}]}))
    assert names(choice) == [CPU]
    assert "openvino is ignored: this onnxruntime has no OpenVINOExecutionProvider" in choice.warnings[0]


def test_tensorrt_gets_its_options_under_onnx_runtimes_names():
    parameters = {"precision_mode": "FP16", "max_workspace_size_bytes": "1024", "trt_engine_cache_enable": "1"}
    accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]}
    choice = choose(config(accelerators), [TENSORRT, CUDA, CPU], gpu=True, device_id=1)
    assert names(choice) == [TENSORRT, CUDA, CPU]
    assert choice.providers[0].options == {
        "device_id": "1",
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "1024",
        "trt_engine_cache_enable": "1",
    }


def test_tensorrt_on_a_cpu_instance_means_nothing():
    choice = choose(config({"gpu_execution_accelerator": [{"name": "tensorrt"}]}))
    assert names(choice) == [CPU]


@pytest.mark.parametrize(("kind", "gpu", "known"), [("cpu", False, "openvino"), ("gpu", True, "tensorrt or cuda")])
def test_an_accelerator_that_no_build_has_is_refused(kind, gpu, known):
    accelerators = {f"{kind}_execution_accelerator": [{"name": "abacus"}]}
    with pytest.raises(LoadFailed, match=f"got:      abacus\n  expected: {known}"):
        choose(config(accelerators), [CUDA, CPU], gpu=gpu)


@pytest.mark.parametrize("parameters", [{"precision_mode": "FP4"}, {"speed": "high"}])
def test_a_wrong_tensorrt_parameter_is_refused(parameters):
    accelerators = {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]}
    with pytest.raises(
        LoadFailed, match=next(iter(parameters.values() if "precision_mode" in parameters else parameters))
    ):
        choose(config(accelerators), [TENSORRT, CUDA, CPU], gpu=True)


def test_cuda_options_come_from_the_accelerator_and_from_the_old_parameters():
    accelerators = {"gpu_execution_accelerator": [{"name": "cuda", "parameters": {"use_tf32": "0"}}]}
    parameters = {"cudnn_conv_algo_search": "1", "gpu_mem_limit": "4096"}
    (cuda, _) = choose(config(accelerators, parameters=parameters), [CUDA, CPU], gpu=True).providers
    assert cuda.options == {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "4096",
    }


def test_a_number_beyond_the_choices_of_cuda_is_refused():
    with pytest.raises(LoadFailed, match="arena_extend_strategy is out of range"):
        choose(config(parameters={"arena_extend_strategy": "2"}), [CUDA, CPU], gpu=True)


@pytest.mark.parametrize(
    ("parameters", "instances", "word"),
    [
        ({"share_session_between_instances": "true"}, 1, "share_session_between_instances is ignored"),
        ({}, 2, "2 instances without intra_op_thread_count"),
    ],
)
def test_what_means_nothing_here_is_told(parameters, instances, word):
    (note,) = ignored_parameters(config(parameters=parameters, instance_group=[{"count": instances}]))
    assert word in note


def test_instances_with_threads_of_their_own_need_no_note():
    made = config(parameters={"intra_op_thread_count": "1"}, instance_group=[{"count": 2}])
    assert ignored_parameters(made) == []
