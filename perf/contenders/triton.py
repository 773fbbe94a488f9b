"""Ours: the exported forms of a workload in one embedded Triton, over HTTP with JSON or binary tensors, and gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from conch.repository import Repository
from conch.tensor_spec import Array
from perf.contenders.entries import Target
from perf.contenders.processes import post
from perf.contenders.workloads import Payload, Workload, tensors
from perf.grpc_load import run_grpc_load
from perf.http_load import JSON, run_load
from server.embedded import EmbeddedServer
from server.options import ServerOptions

HEADER_LENGTH = "Inference-Header-Content-Length"


@contextmanager
def serving(workload: Workload, repository: Repository) -> Iterator[list[Target]]:
    """Every form over every protocol that can carry its payloads; the ensemble over one, as it is for contrast."""
    names = tuple(workload.forms)
    options = ServerOptions(
        control="explicit", load_models=names, http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=3
    )
    payloads = workload.payloads()
    with EmbeddedServer(repository.root, options) as server:
        targets = []
        for name, form in workload.forms.items():
            label = "conch" if form == "auto" else f"conch {form}"
            url, pids = f"{server.http_url}/v2/models/{name}/infer", (server.pid,)
            if workload.json_in:
                targets.append(json_target(f"{label}, HTTP/JSON", url, payloads, pids))
            if form != "ensemble" or not workload.json_in:
                targets.append(binary_target(f"{label}, HTTP/binary", url, payloads, pids))
            if form != "ensemble":
                targets.append(grpc_target(f"{label}, gRPC", server.grpc_url.partition("://")[2], name, payloads, pids))
        yield targets


def json_target(name: str, url: str, payloads: Sequence[Payload], pids: tuple[int, ...]) -> Target:
    """JSON in and out."""
    bodies = [json_request(payload) for payload in payloads]
    return Target(
        name=name,
        ask=lambda index: read_json(post(url, bodies[index], JSON)[0]),
        load=lambda connections, duration_s, warmup_s: run_load(url, bodies, connections, duration_s, warmup_s),
        pids=pids,
    )


def json_request(payload: Payload) -> bytes:
    """A payload in Triton's JSON."""
    inputs = [
        {
            "name": name,
            "datatype": "FP32" if array.dtype == np.float32 else "BYTES",
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for name, array in tensors(payload).items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def read_json(answer: bytes) -> dict[str, Array]:
    """The outputs of an answer in JSON."""
    return {output["name"]: np.array(output["data"]) for output in json.loads(answer)["outputs"]}


def binary_target(name: str, url: str, payloads: Sequence[Payload], pids: tuple[int, ...]) -> Target:
    """Tensors as bytes after a JSON header, both ways, as Triton's clients do it."""
    made = [binary_request(payload) for payload in payloads]

    def headers(index: int) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(made[index][1])}

    def ask(index: int) -> dict[str, Array]:
        answer, received = post(url, made[index][0], headers(index))
        length = {key.lower(): value for key, value in received.items()}[HEADER_LENGTH.lower()]
        return read_binary(answer, int(length))

    return Target(
        name=name,
        ask=ask,
        load=lambda connections, duration_s, warmup_s: run_load(
            url,
            [body for body, _ in made],
            connections,
            duration_s,
            warmup_s,
            [headers(index) for index in range(len(made))],
        ),
        pids=pids,
    )


def binary_request(payload: Payload) -> tuple[bytes, int]:
    """A payload as a JSON header and bytes, and the header's length.

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
    """
    inputs, data = [], b""
    for name, array in tensors(payload).items():
        raw = raw_bytes(array)
        datatype = "FP32" if array.dtype == np.float32 else "BYTES"
        parameters = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": parameters})
        data += raw
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + data, len(head)


def raw_bytes(array: Array) -> bytes:
    """An array as Triton's bytes: numbers little-endian; each string after its length."""
    if array.dtype != object:
        return array.tobytes()
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def read_binary(answer: bytes, length: int) -> dict[str, Array]:
    """The outputs of an answer whose JSON header has this length."""
    outputs, at = {}, length
    for output in json.loads(answer[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = read_raw(output["datatype"], answer[at : at + size])
        at += size
    return outputs


def read_raw(datatype: str, data: bytes) -> Array:
    """FP32 or BYTES, flat."""
    if datatype == "FP32":
        return np.frombuffer(data, "<f4")
    items, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        items.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(items)


def grpc_target(name: str, address: str, model: str, payloads: Sequence[Payload], pids: tuple[int, ...]) -> Target:
    """ModelInfer with raw contents, as Triton's clients send it."""
    host, _, port = address.rpartition(":")
    messages = [grpc_request(model, payload) for payload in payloads]
    return Target(
        name=name,
        ask=lambda index: ask_grpc(address, messages[index]),
        load=lambda connections, duration_s, warmup_s: run_grpc_load(
            host, int(port), messages, connections, duration_s, warmup_s
        ),
        pids=pids,
    )


def grpc_request(model: str, payload: Payload) -> bytes:
    """A serialized ModelInferRequest."""
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(model_name=model)
    for name, array in tensors(payload).items():
        datatype = "FP32" if array.dtype == np.float32 else "BYTES"
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(raw_bytes(array))
    return bytes(message.SerializeToString())


def ask_grpc(address: str, message: bytes) -> Mapping[str, Array]:
    """One answer, through the real gRPC library."""
    import grpc
    from tritonclient.grpc import service_pb2

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = service_pb2.ModelInferResponse.FromString(call(message, timeout=30))
    outputs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {output.name: read_raw(output.datatype, raw) for output, raw in outputs}
