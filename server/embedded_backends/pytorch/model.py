"""Stand-in for Triton's native pytorch backend (TorchScript), for the embedded server, which comes without it.

Triton runs this file for every model whose config.pbtxt says ``backend: "pytorch"`` when the backend directory has no
libtriton_pytorch.so: https://github.com/triton-inference-server/backend#python-based-backends
It only adapts: settings, naming, module and batching lie beside it. One process and one module an instance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from conch_backend_config import LoadFailed, asks_for_gpu, check_numpy, find_model_file, read_config
from conch_batching import Batcher, RequestFailed
from conch_torch_module import apply_settings, cuda_is_available, forward_of, load_module, runner
from conch_torch_settings import choose_device, ignored_parameters, torch_settings
from conch_torch_signature import model_inputs, wire

DEFAULT_FILE = "model.pt"


class TritonPythonModel:
    """One instance of a model. It completes no configuration: TorchScript files do not say types and shapes."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the module. Raises: LoadFailed, which Triton shows as the reason why the model is not ready."""
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


def _load(args: dict[str, str]) -> Batcher:
    check_numpy()
    config = read_config(json.loads(args["model_config"]))
    settings = torch_settings(config)
    folder = Path(args["model_repository"])
    path = find_model_file(folder / args["model_version"], config, DEFAULT_FILE)
    kind = args["model_instance_kind"]
    device, warning = choose_device(
        config,
        kind=kind,
        gpu_was_asked_for=kind == "GPU" and asks_for_gpu(folder / "config.pbtxt"),
        device_id=int(args["model_instance_device_id"]),
        cuda=kind == "GPU" and cuda_is_available(),
    )
    apply_settings(settings)
    module = load_module(path, config.model_name, device)
    wiring = wire(config, forward_of(module))
    if module.training:
        warning = (
            "the module was saved in training mode (dropout and batch statistics are on): call eval() before saving"
        )
    for note in (*wiring.notes, *filter(None, [warning])):
        pb_utils.Logger.log_warn(f"{config.model_name}: {note}")
    for note in ignored_parameters(config):
        pb_utils.Logger.log_info(f"{config.model_name}: {note}")
    run = runner(module, config, wiring, settings, device)
    return Batcher(model_inputs(config), [t.name for t in config.outputs], run, batched=config.batched)


def _respond(wanted: list[str], answer: Any) -> Any:
    if isinstance(answer, RequestFailed):
        code = pb_utils.TritonError.INVALID_ARG if answer.invalid else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse([], pb_utils.TritonError(answer.message, code))
    tensors = [pb_utils.Tensor(name, array) for name, array in zip(wanted, answer, strict=True)]
    return pb_utils.InferenceResponse(tensors)
