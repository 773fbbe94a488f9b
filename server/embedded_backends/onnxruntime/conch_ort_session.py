"""Open an ONNX Runtime session as settings say, and run it on arrays as Triton hands them over.

The only file here that imports onnxruntime, and only when a session is opened: Triton starts each model's code once
just to ask whether it completes its configuration, and most need not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from conch_backend_config import BackendConfig, LoadFailed
from conch_ort_settings import CPU, ProviderChoice, SessionSettings
from conch_ort_signature import Signature, read_signature

Array = npt.NDArray[Any]


def available_providers() -> list[str]:
    """The execution providers of the installed onnxruntime."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def session_options(settings: SessionSettings) -> Any:
    """An onnxruntime.SessionOptions with the settings applied."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, settings.graph_level)
    mode = onnxruntime.ExecutionMode
    options.execution_mode = mode.ORT_PARALLEL if settings.parallel else mode.ORT_SEQUENTIAL
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.memory_arena is not None:
        options.enable_cpu_mem_arena = settings.memory_arena
    if settings.memory_pattern is not None:
        options.enable_mem_pattern = settings.memory_pattern
    for key, value in settings.session_entries.items():
        options.add_session_config_entry(key, value)
    for path in settings.op_libraries:
        options.register_custom_ops_library(path)
    return options


def run_options(settings: SessionSettings) -> Any:
    """An onnxruntime.RunOptions with the settings applied, or None when there are none."""
    if not settings.run_entries:
        return None
    import onnxruntime

    options = onnxruntime.RunOptions()
    for key, value in settings.run_entries.items():
        options.add_run_config_entry(key, value)
    return options


def open_session(path: Path, model: str, settings: SessionSettings, choice: ProviderChoice) -> Any:
    """Load a file into an onnxruntime.InferenceSession. Raises: LoadFailed, with ONNX Runtime's own words."""
    import onnxruntime

    providers = [(provider.name, dict(provider.options)) for provider in choice.providers]
    try:
        session = onnxruntime.InferenceSession(str(path), session_options(settings), providers=providers)
    except Exception as error:
        raise LoadFailed(f"{model}: ONNX Runtime {onnxruntime.__version__} cannot load {path}", got=error) from None
    # ONNX Runtime goes on without a provider that does not start; a model that asks for a GPU should not.
    lost = [p.name for p in choice.providers if p.name != CPU and p.name not in session.get_providers()]
    if lost:
        raise LoadFailed(
            f"{model}: {', '.join(lost)} is installed and did not start",
            got=", ".join(session.get_providers()),
            expected=", ".join(p.name for p in choice.providers),
            fix="look for its own message above (often a missing CUDA or cuDNN library); or use KIND_CPU",
        )
    return session


def signature_of(session: Any, model: str) -> Signature:
    """The tensors of a session's graph. Raises: LoadFailed."""
    return read_signature(model, session.get_inputs(), session.get_outputs(), session.get_overridable_initializers())


def runner(
    session: Any, config: BackendConfig, signature: Signature, options: Any = None
) -> Callable[[dict[str, Array], list[str]], Sequence[Array]]:
    """A function that runs the session: (inputs by name, names of outputs) -> outputs in that order.

    Strings come in as ``bytes`` and leave as ``str``, which Triton encodes. Scalars of models without a batch have
    the dims of the configuration outside and none inside.
    """
    names = {t.name for t in config.inputs}
    strings = tuple(t.name for t in (*signature.inputs, *signature.optional) if t.datatype == "TYPE_STRING")
    scalars_in = tuple(t.name for t in signature.inputs if not t.shape and t.name in names)
    scalars_out = {t.name: t.dims for t in config.outputs if (s := signature.output(t.name)) and not s.shape}
    run = session.run

    def run_plain(arrays: dict[str, Array], wanted: list[str]) -> Sequence[Array]:
        outputs: Sequence[Array] = run(wanted, arrays, options)
        return outputs

    def run_special(arrays: dict[str, Array], wanted: list[str]) -> Sequence[Array]:
        arrays = dict(arrays)
        for name in strings:
            if name in arrays:
                arrays[name] = decode(name, arrays[name])
        for name in scalars_in:
            arrays[name] = arrays[name].reshape(())
        outputs = run_plain(arrays, wanted)
        return [
            np.asarray(output).reshape(scalars_out[name]) if name in scalars_out else output
            for name, output in zip(wanted, outputs, strict=True)
        ]

    return run_special if strings or scalars_in or scalars_out else run_plain


def decode(name: str, array: Array) -> Array:
    """Strings as ``str`` objects from ``bytes``: ONNX Runtime would take the bytes' repr. Raises: ValueError."""
    try:
        texts = [item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"input {name} holds a string that is not UTF-8: {error}") from None
    decoded = np.empty(len(texts), dtype=np.object_)
    decoded[:] = texts
    return decoded.reshape(array.shape)
