"""A model that speaks the generate models' tensors and needs no engine: it says its prompt's words again and again.

Each word is a token, and so is the blank before it. A prompt that begins with `invalid:`, `too long:`, `queue full:` or
`fail:` is refused so; `state?` is answered with how many requests run, and how many were cancelled so far.
"""

from __future__ import annotations

import json
import time
from typing import Any

MODEL = """
import itertools
import json
import threading
import time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
KNOWN = {"max_tokens", "stop", "ignore_eos", "logprobs", "delay_ms", "temperature", "seed"}
KNOWN |= {"lora", "lora_name", "guided_json"}


def strings(*items):
    return np.array([item.encode() for item in items], dtype=object)


class TritonPythonModel:
    def initialize(self, args):
        self.running, self.cancelled, self.lock = 0, 0, threading.Lock()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.run, args=(request, request.get_response_sender())).start()

    def run(self, request, sender):
        if self.text(request, "text_input") == "state?":
            state = json.dumps({"running": self.running, "cancelled": self.cancelled})
            sender.send(self.response({}, state, "stop", 1, 1, []), flags=FINAL)
            return
        with self.lock:
            self.running += 1
        try:
            self.say(request, sender)
        except Exception as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        finally:
            with self.lock:
                self.running -= 1
            sender.send(flags=FINAL)

    def say(self, request, sender):
        prompt, chat = self.text(request, "text_input"), self.text(request, "chat")
        if chat:
            document = json.loads(chat)
            prompt = " ".join(m["role"] + " " + (m.get("content") or "") for m in document["messages"])
            prompt += "".join(" " + tool["function"]["name"] for tool in document.get("tools", []))
        if prompt.startswith(("invalid:", "too long:", "queue full:", "fail:")):
            raise pb_utils.TritonModelException(prompt.removeprefix("fail: "))
        sampling = json.loads(self.text(request, "sampling_parameters") or "{}")
        if unknown := set(sampling) - KNOWN:
            raise pb_utils.TritonModelException("invalid: there is no " + ", ".join(sorted(unknown)))
        if prompt == "sampling?":
            prompt = json.dumps(sampling)
        asked = {n: self.flag(request, n) for n in RETURNED}
        words = prompt.split()
        limit, stop = sampling.get("max_tokens") or 8, sampling.get("stop", [])
        tokens = list(itertools.islice(itertools.cycle(words), limit))
        reason = "length"
        for index, word in enumerate(tokens):
            if word in stop:
                tokens, reason = tokens[:index], "stop"
                break
        said = [word if index == 0 else " " + word for index, word in enumerate(tokens)]
        whole = not self.flag(request, "stream")
        for index, token in enumerate(said):
            if sender.is_cancelled():
                with self.lock:
                    self.cancelled += 1
                return
            if not whole:
                end = reason if index == len(said) - 1 else ""
                sender.send(self.response(asked, token, end, len(words), 1, [token]))
            time.sleep(sampling.get("delay_ms", 0) / 1000)
        if whole or not said:
            sender.send(self.response(asked, "".join(said), reason, len(words), len(said), said))

    def response(self, asked, text, reason, tokens_in, tokens_out, tokens):
        outputs = [pb_utils.Tensor("text_output", strings(text))]
        if asked.get("return_finish_reason"):
            outputs.append(pb_utils.Tensor("finish_reason", strings(reason)))
        if asked.get("return_num_input_tokens"):
            outputs.append(pb_utils.Tensor("num_input_tokens", np.array([tokens_in], np.uint32)))
        if asked.get("return_num_output_tokens"):
            outputs.append(pb_utils.Tensor("num_output_tokens", np.array([tokens_out], np.uint32)))
        if asked.get("return_logprobs"):
            each = [
                {
                    len(t): {"logprob": -0.5, "rank": 2, "decoded_token": t},
                    0: {"logprob": -0.1, "rank": 1, "decoded_token": "?"},
                }
                for t in tokens
            ]
            outputs.append(pb_utils.Tensor("logprobs", strings(json.dumps(each))))
        return pb_utils.InferenceResponse(outputs)

    def text(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return "" if tensor is None else tensor.as_numpy().ravel()[0].decode()

    def flag(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return False if tensor is None else bool(tensor.as_numpy().ravel()[0])
"""

RETURNED = tuple(f"return_{name}" for name in ("finish_reason", "logprobs", "num_input_tokens", "num_output_tokens"))
OUTPUTS = {
    "text_output": "STRING",
    "finish_reason": "STRING",
    "logprobs": "STRING",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}


def _config(*, chat: bool) -> str:
    optional = [("stream", "BOOL"), ("sampling_parameters", "STRING"), ("exclude_input_in_output", "BOOL")]
    optional += [(name, "BOOL") for name in RETURNED] + ([("chat", "STRING")] if chat else [])
    lines = ['backend: "python"', "max_batch_size: 0", "model_transaction_policy { decoupled: true }"]
    lines += ['input { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }']
    lines += [f'input {{ name: "{n}" data_type: TYPE_{t} dims: [ 1 ] optional: true }}' for n, t in optional]
    lines += [f'output {{ name: "{n}" data_type: TYPE_{t} dims: [ -1 ] }}' for n, t in OUTPUTS.items()]
    return "\n".join(lines) + "\n"


def add_parrot(triton: Any, name: str = "parrot", *, chat: bool = True) -> None:
    """Load it; without ``chat`` it has the inputs of a vLLM model."""
    triton.add(name, _config(chat=chat), {"model.py": MODEL.replace("RETURNED", repr(RETURNED))})


def state(client: Any, name: str = "parrot") -> dict[str, int]:
    """How many of its requests run, and how many were cancelled."""
    return dict(json.loads(client.generate(name, "state?").text))


def wait_for_state(client: Any, name: str = "parrot", within_s: float = 10.0, **expected: int) -> dict[str, int]:
    """Its state, as soon as it is as expected, or at the end of the time."""
    ends_s = time.monotonic() + within_s
    found = state(client, name)
    while found | expected != found and time.monotonic() < ends_s:
        time.sleep(0.02)
        found = state(client, name)
    return found
