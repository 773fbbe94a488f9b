"""Stand-in for Triton's native onnxruntime backend, for the embedded server, which comes without it.

Triton runs this file for every model whose config.pbtxt says ``backend: "onnxruntime"`` when the backend directory has
no libtriton_onnxruntime.so: https://github.com/triton-inference-server/backend#python-based-backends
It only adapts: settings, signature, session and batching lie beside it. One process and one session an instance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from conch_backend_config import LoadFailed, asks_for_gpu, check_numpy, find_model_file, read_config
from conch_batching import Batcher, RequestFailed
from conch_ort_session import available_providers, open_session, run_options, runner, signature_of
from conch_ort_settings import choose_providers, ignored_parameters, session_settings
from conch_ort_signature import complete, match

DEFAULT_FILE = "model.onnx"


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the configuration leaves out, as the native backend does; nothing if it names both ends."""
        config = auto_complete_model_config.as_dict()
        if not (config["input"] and config["output"]):
            try:
                _complete(auto_complete_model_config, config)
            except LoadFailed as failure:
                raise failure.with_traceback(None) from None
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session. Raises: LoadFailed, which Triton shows as the reason why the model is not ready."""
        try:
            self._batcher = _load(args)
        except LoadFailed as failure:
            # Triton appends the traceback to what it shows; the message says all, so keep that short.
            raise failure.with_traceback(None) from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a list of requests, which the dynamic batcher may have gathered; one response each, in order."""
        # The names come as a set: one order of them must hold from here to the response.
        asks = [({t.name(): t.as_numpy() for t in r.inputs()}, list(r.requested_output_names())) for r in requests]
        return [_respond(wanted, answer) for (_, wanted), answer in zip(asks, self._batcher.answer(asks), strict=True)]


def _complete(model_config: Any, config: dict[str, Any]) -> None:
    check_numpy()
    parsed = read_config(config)
    path = find_model_file(Path(pb_utils.get_model_dir()), parsed, DEFAULT_FILE)
    on_cpu = choose_providers(parsed, gpu=False, gpu_was_asked_for=False, device_id=0, available=[])
    session = open_session(path, parsed.model_name, session_settings(parsed), on_cpu)
    completion = complete(config, signature_of(session, parsed.model_name))
    if completion.max_batch_size is not None:
        model_config.set_max_batch_size(completion.max_batch_size)
    if completion.dynamic_batching:
        model_config.set_dynamic_batching()
    # Not add_input and add_output: they know nothing of `reshape`. The dict is the one that Triton reads back.
    config["input"].extend(completion.inputs)
    config["output"].extend(completion.outputs)


def _load(args: dict[str, str]) -> Batcher:
    check_numpy()
    config = read_config(json.loads(args["model_config"]))
    settings = session_settings(config)
    folder = Path(args["model_repository"])
    path = find_model_file(folder / args["model_version"], config, DEFAULT_FILE)
    gpu = args["model_instance_kind"] == "GPU"
    choice = choose_providers(
        config,
        gpu=gpu,
        gpu_was_asked_for=gpu and asks_for_gpu(folder / "config.pbtxt"),
        device_id=int(args["model_instance_device_id"]),
        available=available_providers(),
    )
    session = open_session(path, config.model_name, settings, choice)
    signature = signature_of(session, config.model_name)
    inputs = match(config, signature)
    for note in choice.warnings:
        pb_utils.Logger.log_warn(f"{config.model_name}: {note}")
    for note in ignored_parameters(config):
        pb_utils.Logger.log_info(f"{config.model_name}: {note}")
    run = runner(session, config, signature, run_options(settings))
    return Batcher(inputs, [t.name for t in config.outputs], run, batched=config.batched)


def _respond(wanted: list[str], answer: Any) -> Any:
    if isinstance(answer, RequestFailed):
        code = pb_utils.TritonError.INVALID_ARG if answer.invalid else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse([], pb_utils.TritonError(answer.message, code))
    tensors = [pb_utils.Tensor(name, array) for name, array in zip(wanted, answer, strict=True)]
    return pb_utils.InferenceResponse(tensors)
