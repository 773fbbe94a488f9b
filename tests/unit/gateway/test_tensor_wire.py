"""Tensors in bodies of Triton's HTTP protocol: what is sent, and what comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conch.errors import SignatureError
from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.tensor_wire import decode, encode

SIGNATURE = ModelSignature(
    (TensorSpec("text", "BYTES", (1,)), TensorSpec("x", "FP32", (2,)), TensorSpec("half", "BF16", (1,), optional=True)),
    (TensorSpec("y", "FP32", (2,)),),
    8,
)


def sent(**inputs: object) -> tuple[dict[str, object], bytes]:
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    size, body = encode(SIGNATURE, arrays, ("y",), "id-1", 5)
    return json.loads(body[:size]), body[size:]


def test_a_request_names_its_tensors_and_carries_their_bytes() -> None:
    texts = np.array([["é"], [b"\0a"]], dtype=object)
    head, raw = sent(text=texts, x=np.array([[1, 2], [3, 4]], np.float32).T)
    assert [(t["name"], t["shape"], t["datatype"]) for t in head["inputs"]] == [  # type: ignore[attr-defined]
        ("text", [2, 1], "BYTES"),
        ("x", [2, 2], "FP32"),
    ]
    assert raw == b"\2\0\0\0\xc3\xa9\2\0\0\0\0a" + np.array([1, 3, 2, 4], "<f4").tobytes()
    assert head["parameters"] == {"binary_data_output": True, "timeout": 5}
    assert (head["id"], head["outputs"]) == ("id-1", [{"name": "y", "parameters": {"binary_data": True}}])


def test_a_bfloat16_is_the_upper_half_of_a_float() -> None:
    assert sent(half=np.array([[1.0]], np.float32))[1] == b"\x80\x3f"


def test_an_input_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(SignatureError, match="no input named z"):
        sent(z=[1])


def answer(*outputs: tuple[str, str, list[int], bytes]) -> tuple[bytes, int]:
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        for name, kind, shape, raw in outputs
    ]
    head = json.dumps({"model_name": "m", "model_version": "3", "outputs": described}).encode()
    return head + b"".join(raw for _, _, _, raw in outputs), len(head)


def test_an_answer_is_arrays_by_name_and_who_gave_it() -> None:
    body, size = answer(
        ("y", "FP32", [1, 2], np.array([1, 2], "<f4").tobytes()),
        ("label", "BYTES", [2], b"\1\0\0\0a\0\0\0\0"),
        ("half", "BF16", [1], b"\x80\x3f"),
        ("none", "INT64", [0], b""),
    )
    found = decode(body, size)
    assert (found.model, found.version) == ("m", "3")
    assert found["y"].tolist() == [[1.0, 2.0]]
    assert found["label"].tolist() == [b"a", b""]
    assert found["half"].tolist() == [1.0]
    assert found["none"].shape == (0,)


def test_an_answer_in_json_alone_is_read_too() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    found = decode(json.dumps({"model_name": "m", "model_version": "3", "outputs": [output]}).encode(), None)
    assert found["y"].tolist() == [[1.0, 2.0]]
