"""Which ONNX Runtime settings a configuration asks for, as the native onnxruntime backend reads it.

Pure: onnxruntime is not imported. Names and defaults are the native backend's:
https://github.com/triton-inference-server/onnxruntime_backend (README.md, src/onnxruntime.cc)

Threads: ``intra_op_thread_count`` 0 or absent leaves the choice to ONNX Runtime, one thread a physical core *for every
instance*, as in the native backend. Here each instance is a process, so K instances have K such pools: set it to
ceil(cores / K) when K > 1.

Idle threads of these pools do not spin here, where the native backend lets them: they would take the cores from the
server, the other instances and the clients, which share this machine. Measured on 2 busy cores, 8 connections: 120 to
160 requests/s with spinning, 190 to 350 without. Answers are the same. ``session.intra_op.allow_spinning`` "1" brings
it back; the native backend ignores that parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conch_backend_config import Accelerator, BackendConfig, LoadFailed

CPU, CUDA, TENSORRT, OPENVINO = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "OpenVINOExecutionProvider",
)

# optimization.graph.level -> the attribute of onnxruntime.GraphOptimizationLevel; any other level means all.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}

_SESSION_ENTRIES = (
    "session.use_device_allocator_for_initializers",
    "session.intra_op.allow_spinning",
    "session.inter_op.allow_spinning",
)
_NO_SPINNING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
_RUN_ENTRIES = ("memory.enable_memory_arena_shrinkage",)

# TensorRT parameters that Triton names differently than ONNX Runtime; others are passed on as they are.
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_PRECISIONS = {"FP32": None, "FP16": "trt_fp16_enable", "INT8": "trt_int8_enable"}

# Deprecated parameters of the CUDA provider: what their numbers stand for, None for a value that is passed on.
_CUDA_CHOICES: dict[str, tuple[str, ...] | None] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "gpu_mem_limit": None,
    "do_copy_in_default_stream": None,
}


@dataclass(frozen=True)
class SessionSettings:
    """Settings of a session; None and 0 leave ONNX Runtime's own default."""

    graph_level: str = "ORT_ENABLE_ALL"
    parallel: bool = False
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    memory_arena: bool | None = None
    memory_pattern: bool | None = None
    session_entries: Mapping[str, str] = field(default_factory=dict)
    run_entries: Mapping[str, str] = field(default_factory=dict)
    op_libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provider:
    """An execution provider and its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProviderChoice:
    """Providers in the order in which they are tried for each node, and what the log should say of the choice."""

    providers: tuple[Provider, ...]
    warnings: tuple[str, ...] = ()


def session_settings(config: BackendConfig) -> SessionSettings:
    """Read the settings of a session. Raises: LoadFailed for a value that the native backend refuses."""
    mode = config.integer("execution_mode", 0)
    if mode not in (0, 1):
        raise LoadFailed(
            f"{config.model_name}: parameter execution_mode is out of range",
            got=mode,
            expected="0 (sequential) or 1 (parallel)",
        )
    return SessionSettings(
        graph_level=GRAPH_LEVELS.get(config.graph_level, "ORT_ENABLE_ALL"),
        parallel=mode == 1,
        intra_op_threads=max(0, config.integer("intra_op_thread_count", 0)),
        inter_op_threads=max(0, config.integer("inter_op_thread_count", 0)),
        memory_arena=config.boolean("enable_mem_arena", None),
        memory_pattern=config.boolean("enable_mem_pattern", None),
        session_entries=_NO_SPINNING
        | {key: config.parameters[key] for key in _SESSION_ENTRIES if key in config.parameters},
        run_entries={key: config.parameters[key] for key in _RUN_ENTRIES if key in config.parameters},
        op_libraries=config.op_libraries,
    )


def choose_providers(
    config: BackendConfig, *, gpu: bool, gpu_was_asked_for: bool, device_id: int, available: Sequence[str]
) -> ProviderChoice:
    """Pick the execution providers of one instance from those that this onnxruntime package has.

    ``gpu`` says that Triton placed the instance on a GPU, ``gpu_was_asked_for`` that the configuration names KIND_GPU.
    Raises: LoadFailed when a GPU was asked for and cannot be used, or for an accelerator that no native build has.
    """
    chosen: list[Provider] = []
    warnings: list[str] = []
    if gpu and CUDA in available:
        chosen += _gpu_accelerators(config, device_id, available, warnings)
        chosen.append(Provider(CUDA, _cuda_options(config, device_id)))
    elif gpu and gpu_was_asked_for:
        raise LoadFailed(
            f"{config.model_name}: the configuration asks for KIND_GPU, and this onnxruntime cannot use one",
            got=", ".join(available),
            expected=CUDA,
            fix="pip uninstall onnxruntime, then pip install onnxruntime-gpu; or use KIND_CPU or KIND_AUTO",
        )
    elif gpu:
        warnings.append(f"there is a GPU, but this onnxruntime has no {CUDA}: running on the CPU")
    for accelerator in config.cpu_accelerators:
        if accelerator.name != "openvino":
            raise _unknown(config, accelerator, "openvino", "CPUs")
        if OPENVINO in available:
            chosen.append(Provider(OPENVINO, {"device_type": "CPU", **accelerator.parameters}))
        else:
            warnings.append(_absent(accelerator, OPENVINO, "onnxruntime-openvino"))
    return ProviderChoice((*chosen, Provider(CPU)), tuple(warnings))


def _gpu_accelerators(
    config: BackendConfig, device_id: int, available: Sequence[str], warnings: list[str]
) -> list[Provider]:
    """TensorRT, where it is asked for and there; the entry "cuda" only carries options."""
    chosen = []
    for accelerator in config.gpu_accelerators:
        if accelerator.name == "cuda":
            continue
        if accelerator.name != "tensorrt":
            raise _unknown(config, accelerator, "tensorrt or cuda", "GPUs")
        if TENSORRT in available:
            chosen.append(Provider(TENSORRT, _tensorrt_options(config, accelerator, device_id)))
        else:
            warnings.append(_absent(accelerator, TENSORRT, "onnxruntime-gpu and TensorRT"))
    return chosen


def _unknown(config: BackendConfig, accelerator: Accelerator, known: str, place: str) -> LoadFailed:
    return LoadFailed(
        f"{config.model_name}: no build of the onnxruntime backend has this execution accelerator for {place}",
        got=accelerator.name,
        expected=known,
    )


def _absent(accelerator: Accelerator, provider: str, package: str) -> str:
    return (
        f"execution accelerator {accelerator.name} is ignored: this onnxruntime has no {provider} "
        f"(install {package} for it; NVIDIA's container has it)"
    )


def _tensorrt_options(config: BackendConfig, accelerator: Accelerator, device_id: int) -> dict[str, str]:
    options = {"device_id": str(device_id)}
    for key, value in accelerator.parameters.items():
        if key == "precision_mode":
            if value not in _TENSORRT_PRECISIONS:
                raise LoadFailed(
                    f"{config.model_name}: unsupported precision_mode for tensorrt",
                    got=value,
                    expected=", ".join(_TENSORRT_PRECISIONS),
                )
            if (flag := _TENSORRT_PRECISIONS[value]) is not None:
                options[flag] = "1"
        elif key in _TENSORRT_NAMES or key.startswith("trt_"):
            options[_TENSORRT_NAMES.get(key, key)] = value
        else:
            raise LoadFailed(
                f"{config.model_name}: unknown parameter for the execution accelerator tensorrt",
                got=key,
                expected=", ".join(("precision_mode", *_TENSORRT_NAMES, "trt_...")),
            )
    return options


def _cuda_options(config: BackendConfig, device_id: int) -> dict[str, str]:
    options = {"device_id": str(device_id)}
    for accelerator in config.gpu_accelerators:
        if accelerator.name == "cuda":
            options.update(accelerator.parameters)
    for key, names in _CUDA_CHOICES.items():
        if key not in config.parameters:
            continue
        if names is None:
            options[key] = config.parameters[key]
            continue
        number = config.integer(key, 0)
        if not 0 <= number < len(names):
            raise LoadFailed(
                f"{config.model_name}: parameter {key} is out of range",
                got=number,
                expected=", ".join(f"{i} ({name})" for i, name in enumerate(names)),
            )
        options[key] = names[number]
    return options


def ignored_parameters(config: BackendConfig) -> list[str]:
    """What the log should say of parameters that mean nothing here, though the native backend knows them."""
    notes = []
    if config.boolean("share_session_between_instances", False):
        notes.append("share_session_between_instances is ignored: each instance is a process of its own")
    if config.instance_count > 1 and config.integer("intra_op_thread_count", 0) == 0:
        notes.append(
            f"{config.instance_count} instances without intra_op_thread_count: each takes a thread a core; "
            "ceil(cores / instances) is usually faster"
        )
    return notes
