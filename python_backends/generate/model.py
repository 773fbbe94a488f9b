"""Triton model: a prompt or a chat in, generated text out, piece by piece. See generate_loop.py.

Decoupled, with the tensors of Triton's vLLM backend: what asks one engine asks the other.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from generate_engine import Engine
from generate_job import Job, Piece
from generate_loop import EngineLoop
from generate_metrics import EngineMetrics
from generate_prompt import Prompts
from generate_refusal import Refused
from generate_request import read_ask
from generate_settings import read_settings

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# Triton's codes by how a message begins; any other is the engine's.
CODES = {"invalid": "INVALID_ARG", "too long": "INVALID_ARG", "queue full": "UNAVAILABLE", "cancelled": "CANCELLED"}


class TritonPythonModel:
    """One engine a model instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine. Raises: ValueError, RuntimeError, which Triton shows as the reason of a failed load."""
        config = json.loads(args["model_config"])
        if not pb_utils.using_decoupled_model_transaction_policy(config):
            raise ValueError("model_transaction_policy: got decoupled: false, expected true: text comes in pieces")
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self._settings = read_settings(Path(args["model_repository"], args["model_version"]), parameters)
        self._prompts = Prompts(self._settings)
        metrics = EngineMetrics({"model": args["model_name"], "version": args["model_version"]})
        engine = Engine(self._settings)
        self._loop = EngineLoop(engine, self._settings, metrics, pb_utils.Logger.log_error)

    def execute(self, requests: list[Any]) -> None:
        """Queue the requests; their answers come from the stepping thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._submit(request, sender)
            except Exception as error:
                if not isinstance(error, Refused):
                    pb_utils.Logger.log_error(f"generate: a request could not be read: {error!r}")
                _send_error(sender, str(error))

    def finalize(self) -> None:
        """Stop the thread."""
        self._loop.close()

    def _submit(self, request: Any, sender: Any) -> None:
        """Raises: Refused."""
        arrived_s = time.monotonic()
        ask = read_ask({tensor.name(): tensor.as_numpy() for tensor in request.inputs()}, request.parameters())
        if ask.sampling.lora is not None and ask.sampling.lora not in self._settings.adapters:
            names = ", ".join(self._settings.adapters) or "none: this model has no adapters"
            raise Refused(f"invalid: lora: got {ask.sampling.lora!r}, expected one of {names}")
        prompt = self._prompts.encode(ask)
        room = self._settings.context_length - len(prompt)
        self._loop.submit(
            Job(
                ask,
                prompt,
                min(ask.sampling.max_tokens or room, room),
                self._settings.stop_token_ids | ask.sampling.stop_token_ids,
                TritonListener(sender, ask.returns),
                self._prompts.decode if ask.sampling.skip_special_tokens else self._prompts.decode_all,
                arrived_s,
            )
        )


class TritonListener:
    """Makes responses of pieces."""

    def __init__(self, sender: Any, returns: frozenset[str]) -> None:
        """``returns`` are the outputs beside the text."""
        self._sender, self._returns = sender, returns

    def send(self, piece: Piece) -> None:
        """One response; the last one closes the request."""
        tensors = [_strings("text_output", piece.text)]
        if self._returns:
            tensors += self._additional(piece)
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if piece.finish_reason else 0)

    def fail(self, message: str) -> None:
        """An error closes the request."""
        _send_error(self._sender, message)

    def drop(self) -> None:
        """Nobody reads this, but Triton counts it as cancelled."""
        _send_error(self._sender, "cancelled: the client is gone")

    def cancelled(self) -> bool:
        """Whether the client cancelled, or is gone."""
        return bool(self._sender.is_cancelled())

    def _additional(self, piece: Piece) -> list[Any]:
        returns, tensors = self._returns, []
        if "finish_reason" in returns:
            tensors.append(_strings("finish_reason", piece.finish_reason))
        if "cumulative_logprob" in returns:
            tensors.append(pb_utils.Tensor("cumulative_logprob", np.array([piece.cumulative_logprob], np.float32)))
        if "logprobs" in returns:
            tensors.append(_strings("logprobs", piece.logprobs))
        if "num_input_tokens" in returns:
            tensors.append(pb_utils.Tensor("num_input_tokens", np.array([piece.input_tokens], np.uint32)))
        if "num_output_tokens" in returns:
            tensors.append(pb_utils.Tensor("num_output_tokens", np.array([piece.output_tokens], np.uint32)))
        return tensors


def _strings(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode("utf-8")], dtype=np.object_))


def _send_error(sender: Any, message: str) -> None:
    code = getattr(pb_utils.TritonError, CODES.get(message.split(":")[0], "INTERNAL"))
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), flags=FINAL)
