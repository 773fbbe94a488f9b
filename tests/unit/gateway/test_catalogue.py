"""What a model is for, by its tensors; and a description read from its config."""

from __future__ import annotations

import pytest

from conch.errors import ServerUnavailable
from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.catalogue import Catalogue, EnsembleStep, describe, kind_of
from gateway.over_http import Reply
from gateway.pieces import NoCache
from gateway.pool import Pool
from gateway.settings import Server


def tensors(text: str) -> tuple[TensorSpec, ...]:
    """``"text:BYTES x:FP32:2 y?:FP32"``: names, types, dims where they are not 1; ? for optional."""
    found = []
    for word in text.split():
        name, datatype, *dims = word.split(":")
        shape = tuple(int(d) for d in dims) or (1,)
        found.append(TensorSpec(name.rstrip("?"), datatype, shape, name.endswith("?")))
    return tuple(found)


@pytest.mark.parametrize(
    ("inputs", "outputs", "decoupled", "expected"),
    [
        ("text_input:BYTES stream?:BOOL", "text_output:BYTES", True, "generate"),
        ("text_input:BYTES", "text_output:BYTES", False, "tensors"),
        ("text:BYTES", "embedding:FP32:384", False, "embeddings"),
        ("text:BYTES text_pair:BYTES", "score:FP32", False, "rerank"),
        ("text:BYTES text_pair:BYTES", "label:BYTES score:FP32", False, "classify"),
        ("text:BYTES", "label:BYTES score:FP32 scores:FP32:2", False, "classify"),
        ("text:BYTES", "entities:BYTES", False, "classify"),
        ("image:BYTES", "label:BYTES score:FP32", False, "image"),
        ("image:FP32:3", "scores:FP32:10", False, "tensors"),
        ("features:FP32:4", "label:INT64", False, "table"),
        ("age:FP32 city:BYTES", "label:INT64", False, "table"),
        ("x:FP32", "y:FP32", False, "tensors"),
        ("input_ids:INT64:-1 attention_mask:INT64:-1", "last:FP32:-1:384", False, "tensors"),
    ],
)
def test_a_kind_is_told_by_the_public_tensors(inputs: str, outputs: str, decoupled: bool, expected: str) -> None:
    assert kind_of(ModelSignature(tensors(inputs), tensors(outputs), 8), decoupled=decoupled) == expected


def test_an_ensembles_steps_are_described() -> None:
    step = {"model_name": "p_model", "model_version": 2, "input_map": {"a": "b"}, "output_map": {"c": "embedding"}}
    served = describe(
        {
            "name": "p",
            "platform": "ensemble",
            "max_batch_size": 4,
            "input": [{"name": "text", "data_type": "TYPE_STRING", "dims": [1]}],
            "output": [{"name": "embedding", "data_type": "TYPE_FP32", "dims": [3]}],
            "ensemble_scheduling": {"step": [step]},
            "parameters": {"context_length": {"string_value": "512"}},
        },
        "2",
        ("1", "2"),
    )
    assert served.steps == (EnsembleStep("p_model", "2", {"a": "b"}, {"c": "embedding"}),)
    assert (served.backend, served.kind, served.version) == ("ensemble", "embeddings", "2")
    assert served.parameters == {"context_length": "512"}


CONFIG = b'{"name":"add","max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[1]}]}'


@pytest.mark.parametrize("others", [1, 0])
async def test_a_server_that_dies_is_passed_over_for_the_next(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [Server(f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{port}") for port in range(1, 2 + others)]
    pool = Pool(addresses, {})

    async def gone(*_: object, **__: object) -> Reply:
        raise ConnectionResetError

    async def answers(*_: object, **__: object) -> Reply:
        return Reply(200, CONFIG)

    for server in pool.servers:
        server.state, server.last_chosen = "up", server.http_address.port
        monkeypatch.setattr(server.http, "ask", gone if server is pool.servers[0] else answers)
    catalogue = Catalogue(pool, NoCache())
    if others:
        assert (await catalogue.served("add")).name == "add"
    else:
        with pytest.raises(ServerUnavailable):
            await catalogue.served("add")
    assert pool.servers[0].state == "doubted"
