"""What a configuration asks of TorchScript, as the native pytorch backend reads it.

Pure: torch is not imported. Names and defaults are the native backend's:
https://github.com/triton-inference-server/pytorch_backend (README.md, src/libtorch.cc)

Threads: INTRA_OP_THREAD_COUNT absent leaves the choice to torch, one thread a physical core *for every instance*. Here
each instance is a process, so K instances have K such pools: set it to ceil(cores / K) when K > 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from conch_backend_config import BackendConfig, LoadFailed


@dataclass(frozen=True)
class TorchSettings:
    """Settings of an instance; None and 0 leave torch's own default."""

    inference_mode: bool = True
    optimized_execution: bool = True
    cache_cleaning: bool = False
    tensor_fuser: bool | None = None
    jit_profiling: bool | None = None
    jit_executor: bool | None = None
    intra_op_threads: int = 0
    inter_op_threads: int = 0


def torch_settings(config: BackendConfig) -> TorchSettings:
    """Read the settings. Raises: LoadFailed for a value that is none."""
    nvfuser = config.boolean("ENABLE_NVFUSER", None)
    return TorchSettings(
        inference_mode=bool(config.boolean("INFERENCE_MODE", True)),
        optimized_execution=not config.boolean("DISABLE_OPTIMIZED_EXECUTION", False),
        cache_cleaning=bool(config.boolean("ENABLE_CACHE_CLEANING", False)),
        # The native backend ignores this one as soon as ENABLE_NVFUSER is there, whatever that says.
        tensor_fuser=config.boolean("ENABLE_TENSOR_FUSER", None) if nvfuser is None else None,
        jit_profiling=config.boolean("ENABLE_JIT_PROFILING", None),
        jit_executor=config.boolean("ENABLE_JIT_EXECUTOR", None),
        intra_op_threads=max(0, config.integer("INTRA_OP_THREAD_COUNT", 0)),
        inter_op_threads=max(0, config.integer("INTER_OP_THREAD_COUNT", 0)),
    )


def ignored_parameters(config: BackendConfig) -> list[str]:
    """What the log should say of parameters that mean nothing here, though the native backend knows them."""
    notes = []
    if config.boolean("ENABLE_NVFUSER", False):
        notes.append("ENABLE_NVFUSER is ignored: torch has had no nvFuser for TorchScript since 2.2")
    if config.boolean("ENABLE_WEIGHT_SHARING", False):
        notes.append("ENABLE_WEIGHT_SHARING is ignored: each instance is a process of its own")
    if config.instance_count > 1 and config.integer("INTRA_OP_THREAD_COUNT", 0) == 0:
        notes.append(
            f"{config.instance_count} instances without INTRA_OP_THREAD_COUNT: each takes a thread a core; "
            "ceil(cores / instances) is usually faster"
        )
    return notes


def choose_device(
    config: BackendConfig, *, kind: str, gpu_was_asked_for: bool, device_id: int, cuda: bool
) -> tuple[str | None, str | None]:
    """The device of one instance ("cpu", "cuda:1", None for KIND_MODEL: where the file says), and a warning or None.

    ``kind`` is Triton's ("CPU", "GPU", "MODEL"), ``gpu_was_asked_for`` says that the configuration names KIND_GPU,
    ``cuda`` that torch can use a GPU. Raises: LoadFailed when a GPU was asked for and cannot be used.
    """
    if kind == "MODEL":
        return None, None
    if kind != "GPU":
        return "cpu", None
    if cuda:
        return f"cuda:{device_id}", None
    if gpu_was_asked_for:
        raise LoadFailed(
            f"{config.model_name}: the configuration asks for KIND_GPU, and this torch cannot use one",
            got="torch.cuda.is_available() is False",
            expected="a torch built for CUDA, and a driver that it can use",
            fix="install torch for CUDA (https://pytorch.org/get-started), or use KIND_CPU or KIND_AUTO",
        )
    return "cpu", "there is a GPU, but this torch cannot use it: running on the CPU"
