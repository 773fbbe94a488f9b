"""How tests ask a generating model over gRPC, tensor by tensor, and read what it answers."""

from __future__ import annotations

import json
import queue
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

ALL_RETURNS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
GREEDY = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}


@dataclass(frozen=True)
class Answer:
    """All responses of one request: outputs by name each; ``error`` is "" when there was none."""

    responses: tuple[Mapping[str, Any], ...]
    error: str

    @property
    def text(self) -> str:
        return "".join(response["text_output"] for response in self.responses)

    @property
    def pieces(self) -> list[str]:
        return [response["text_output"] for response in self.responses]

    def total(self, name: str) -> int:
        return sum(int(response[name]) for response in self.responses)


class Stream:
    """One request on a gRPC stream of its own."""

    def __init__(self, url: str, model: str, text: str = "", **options: Any) -> None:
        self._client = grpcclient.InferenceServerClient(url.removeprefix("grpc://"))
        self._arrived: queue.Queue[Any] = queue.Queue()
        self._ended = False
        self._client.start_stream(callback=lambda result, error: self._arrived.put((result, error)))
        self._client.async_stream_infer(model, inputs(text, **options), enable_empty_final_response=True)

    def next(self, timeout_s: float = 60) -> Mapping[str, Any] | None:
        """The next response; None when there are no more. Raises: InferenceServerException."""
        if self._ended:
            return None
        result, error = self._arrived.get(timeout=timeout_s)
        if error is not None:
            raise error
        response = result.get_response()
        self._ended = response.parameters["triton_final_response"].bool_param
        outputs = {output.name: result.as_numpy(output.name) for output in response.outputs}
        return {name: value[0].decode() if value.dtype == object else value[0] for name, value in outputs.items()}

    def rest(self) -> Answer:
        """What comes until the end."""
        responses: list[Mapping[str, Any]] = []
        try:
            while (response := self.next()) is not None:
                responses.append(response)
        except InferenceServerException as error:
            return Answer(tuple(responses), str(error.message()))
        return Answer(tuple(responses), "")

    def cancel(self) -> None:
        """Tell the server that nobody waits."""
        self._client.stop_stream(cancel_requests=True)

    def close(self) -> None:
        """Leave, and let no more be made."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()


def inputs(
    text: str,
    *,
    sampling: Mapping[str, Any] | None = None,
    chat: Mapping[str, Any] | None = None,
    stream: bool = True,
    returns: Sequence[str] = (),
    exclude: bool | None = None,
) -> list[Any]:
    """The tensors of one request."""
    given: dict[str, Any] = {"text_input": text, "stream": stream, **{f"return_{name}": True for name in returns}}
    if sampling is not None:
        given["sampling_parameters"] = json.dumps(sampling)
    if chat is not None:
        given["chat"] = json.dumps(chat)
    if exclude is not None:
        given["exclude_input_in_output"] = exclude
    tensors = []
    for name, value in given.items():
        kind = "BOOL" if isinstance(value, bool) else "BYTES"
        tensor = grpcclient.InferInput(name, [1], kind)
        raw = value.encode() if isinstance(value, str) else value
        tensor.set_data_from_numpy(np.array([raw], dtype=bool if kind == "BOOL" else object))
        tensors.append(tensor)
    return tensors


@contextmanager
def asking(url: str, model: str, text: str = "", **options: Any) -> Iterator[Stream]:
    stream = Stream(url, model, text, **options)
    try:
        yield stream
    finally:
        stream.close()


def ask(url: str, model: str, text: str = "", **options: Any) -> Answer:
    """Ask, and wait for all of it."""
    with asking(url, model, text, **options) as stream:
        return stream.rest()


def ask_together(url: str, model: str, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Ask all at once, each on a stream of its own."""
    streams = [Stream(url, model, **request) for request in requests]
    answers = [stream.rest() for stream in streams]
    for stream in streams:
        stream.close()
    return answers


def metric(metrics_url: str, name: str, model: str) -> float:
    """One of a model's metrics, summed over its versions; 0 when it is not there."""
    with urllib.request.urlopen(metrics_url, timeout=10) as response:
        page = response.read().decode()
    found = re.findall(rf'^{name}\{{[^}}]*model="{model}"[^}}]*\}} (\S+)$', page, flags=re.MULTILINE)
    return sum(float(value) for value in found)
